/** Published ports as people write them: `[[address:][host port]:]guest port[/tcp]`. Pure; what is valid beyond the form is the server's to say. */
import type { VmConfig } from "@volant/contract";
import { InvalidArgumentError } from "commander";

export type ExposeEntry = NonNullable<VmConfig["expose"]>[number];

export const PORT_SPEC_HELP = "[[address:][host port]:]<guest port>, such as 8080:80; may be repeated";

const FORM = /^(?:(?:(?:\[([0-9A-Fa-f:.]+)\]|([^:/[\]\s]+)):)?([0-9]{0,5}):)?([0-9]{1,5})(?:\/([A-Za-z]+))?$/;

function isPort(text: string): boolean {
  return Number(text) >= 1 && Number(text) <= 65_535;
}

/** An IPv6 address stands in brackets. Without a port of the host, one that is free is chosen. */
export function parsePortSpec(text: string): ExposeEntry {
  const [whole, ipv6, ipv4, hostPort = "", guestPort = "", protocol] = FORM.exec(text) ?? [];
  const address = ipv6 ?? ipv4;
  const known = protocol?.toLowerCase() ?? "tcp";
  if (
    whole === undefined ||
    !isPort(guestPort) ||
    (hostPort !== "" && !isPort(hostPort)) ||
    (known !== "tcp" && known !== "udp")
  ) {
    throw new InvalidArgumentError(
      "It must be [[address:][host port]:]<guest port>, such as 8080:80, 80, 0.0.0.0:8080:80 or [::1]:8080:80.",
    );
  }
  return {
    port: Number(guestPort),
    ...(hostPort === "" ? {} : { host_port: Number(hostPort) }),
    ...(address === undefined ? {} : { host_address: address }),
    ...(protocol === undefined ? {} : { protocol: known }),
  };
}

/** The other way. */
export function formatPortSpec({ port, host_port: hostPort, host_address: address, protocol }: ExposeEntry): string {
  const host = address?.includes(":") === true ? `[${address}]` : address;
  const parts = [host, hostPort === undefined ? (host === undefined ? undefined : "") : String(hostPort), String(port)];
  const text = parts.filter((part) => part !== undefined).join(":");
  return protocol === undefined ? text : `${text}/${protocol}`;
}

/** Gathers a flag or an argument that may be repeated. */
export function gatherPorts(text: string, before: readonly ExposeEntry[] | undefined): ExposeEntry[] {
  return [...(before ?? []), parsePortSpec(text)];
}
