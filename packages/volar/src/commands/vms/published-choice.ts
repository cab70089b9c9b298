/** Which of a VM's published ports are meant. Pure. */
import type { VmPublishedPort } from "@volant/contract";
import { InvalidArgumentError } from "commander";
import type { ExposeEntry } from "./port-spec.ts";

/** A port of the host, as it was written. */
export interface HostPort {
  readonly text: string;
  readonly port: number;
  /** Undefined: whatever the address is. */
  readonly address: string | undefined;
}

/** Gathers an argument that may be repeated: `8080`, `127.0.0.1:8080`, `[::1]:8080`. */
export function gatherHostPorts(text: string, before: readonly HostPort[] | undefined): HostPort[] {
  const [, ipv6, ipv4, digits = ""] = /^(?:(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):)?([0-9]{1,5})$/.exec(text) ?? [];
  const port = Number(digits);
  if (port < 1 || port > 65_535) {
    throw new InvalidArgumentError("It must be a port of the host, such as 8080, 127.0.0.1:8080 or [::1]:8080.");
  }
  return [...(before ?? []), { text, port, address: ipv6 ?? ipv4 }];
}

/**
 * The entries that stay.
 *
 * @param published what the entries came to: the same number of ports, in the same order
 * @returns `missing`, the first of `chosen` that is none of the VM's
 */
export function remainingPorts(
  expose: readonly ExposeEntry[],
  published: readonly VmPublishedPort[],
  chosen: readonly HostPort[],
): { readonly rest: ExposeEntry[]; readonly missing: HostPort | undefined } {
  const isMeant = (port: VmPublishedPort | undefined, { port: hostPort, address }: HostPort) =>
    port?.host_port === hostPort && (address === undefined || address === port.host_address);
  return {
    rest: expose.filter((_, index) => !chosen.some((meant) => isMeant(published[index], meant))),
    missing: chosen.find((meant) => !published.some((port) => isMeant(port, meant))),
  };
}
