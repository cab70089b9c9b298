/**
 * Published ports: which ports of a guest are reached through which ports of this host. Pure.
 */
import { VolantError, type VmConfig } from "@volant/contract";
import { formatAddress, parseAddress } from "./address.ts";

/** A port as a user asks for it. */
export interface WantedPort {
  readonly name?: string | undefined;
  /** TCP port in the guest. */
  readonly guestPort: number;
  /** Address of this host to listen on, in its one canonical form. */
  readonly address: string;
  /** Undefined: any that is free. */
  readonly hostPort?: number | undefined;
}

/** A port as it is recorded: with the host's port, which it keeps. */
export interface PublishedPort extends WantedPort {
  readonly hostPort: number;
}

/** A published port and its VM. */
export interface VmPort extends PublishedPort {
  readonly vmId: number;
}

/** Only programs of this host reach what nobody asked to show to others. */
export const DEFAULT_PUBLISH_ADDRESS = "127.0.0.1";

/**
 * Where a host port is chosen: below what the kernel gives to outgoing connections (32768 and up: ip(7), ip_local_port_range), so that none of them is
 * in the way when the port is listened on again.
 */
const FIRST_CHOSEN = 20_000;
const LAST_CHOSEN = 29_999;

/** Whether a port is of the range that ports are chosen from. */
export function isChosen(port: number): boolean {
  return port >= FIRST_CHOSEN && port <= LAST_CHOSEN;
}

const WILDCARDS: readonly string[] = ["0.0.0.0", "::"];

/** IPv4 and IPv6 addresses in one form each (RFC 5952); undefined for what is none, has a zone, or is an IPv4 address in IPv6 clothes. */
export function canonicalAddress(text: string): string | undefined {
  const ipv4 = parseAddress(text);
  if (ipv4 !== undefined) return formatAddress(ipv4);
  if (!/^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$/.test(text) || !URL.canParse(`http://[${text}]`)) return undefined;
  const ipv6 = new URL(`http://[${text}]`).hostname.slice(1, -1);
  return ipv6.startsWith("::ffff:") ? undefined : ipv6;
}

/** `127.0.0.1:8080`, `[::1]:8080`. */
export function endpointText({ address, hostPort }: { readonly address: string; readonly hostPort: number }): string {
  return `${address.includes(":") ? `[${address}]` : address}:${hostPort}`;
}

/** Names a port among all of this host. */
export function portKey(port: Pick<PublishedPort, "address" | "hostPort">): string {
  return endpointText(port);
}

/** Whether two listeners can't be there at once. `0.0.0.0` has every IPv4 address and `::` every IPv6 one: each family is listened on by itself. */
export function overlaps(a: WantedPort, b: WantedPort): boolean {
  if (a.hostPort !== b.hostPort || a.address.includes(":") !== b.address.includes(":")) return false;
  return a.address === b.address || WILDCARDS.includes(a.address) || WILDCARDS.includes(b.address);
}

/**
 * What a VM's `expose` asks for.
 *
 * @param where what it belongs to, for the sentence
 * @throws VolantError `invalid` or `not_supported`, naming the entry
 */
export function wantedPorts(where: string, expose: VmConfig["expose"] = []): WantedPort[] {
  const wanted: WantedPort[] = [];
  for (const [index, { name, protocol, port, host_address: given, host_port: hostPort, mode }] of expose.entries()) {
    const field = `${where}: expose.${index}`;
    if (protocol === "udp") {
      throw new VolantError("not_supported", `${field}: only TCP ports can be published, UDP is not supported yet`);
    }
    if (mode !== undefined && mode !== "" && mode !== "forward") {
      const text = JSON.stringify(mode);
      throw new VolantError("not_supported", `${field}: mode ${text} is not supported: leave it out, or use forward`);
    }
    const address = given === undefined ? DEFAULT_PUBLISH_ADDRESS : canonicalAddress(given);
    if (address === undefined) {
      throw new VolantError("invalid", `${field}: host_address ${JSON.stringify(given)} is no IP address`);
    }
    const entry: WantedPort = { name, guestPort: port, address, hostPort };
    const twin = hostPort === undefined ? undefined : wanted.find((other) => overlaps(other, entry));
    if (twin !== undefined && hostPort !== undefined) {
      const text = endpointText({ address, hostPort });
      throw new VolantError("invalid", `${field}: port ${text} of the host is asked for twice`);
    }
    if (name !== undefined && wanted.some((other) => other.name === name)) {
      throw new VolantError("invalid", `${field}: the name "${name}" is given twice`);
    }
    wanted.push(entry);
  }
  return wanted;
}

/**
 * Wanted ports with what was chosen for them before: who asked for no port of the host keeps the one that he was given.
 *
 * @param chosen the VM's ports that were chosen for it; those that it named are not handed on
 */
export function keepChosen(wanted: readonly WantedPort[], chosen: readonly PublishedPort[]): WantedPort[] {
  const free = chosen.filter((port) => !wanted.some((other) => overlaps(other, port)));
  return wanted.map((port) => {
    if (port.hostPort !== undefined) return port;
    const same = (other: PublishedPort) => other.guestPort === port.guestPort && other.address === port.address;
    const named = free.findIndex((other) => same(other) && other.name === port.name);
    const index = named === -1 ? free.findIndex(same) : named;
    const [kept] = index === -1 ? [] : free.splice(index, 1);
    return kept === undefined ? port : { ...port, hostPort: kept.hostPort };
  });
}

/**
 * Ports of the host to try for one that may be any, in order: on from the last one that was chosen, so that a port that was let go is not another VM's
 * at once.
 *
 * @param taken ports that are somebody's
 */
export function* chosenPorts(taken: ReadonlySet<number>, after: number | undefined): Generator<number> {
  const count = LAST_CHOSEN - FIRST_CHOSEN + 1;
  const start = after === undefined || after < FIRST_CHOSEN || after >= LAST_CHOSEN ? 0 : after - FIRST_CHOSEN + 1;
  for (let step = 0; step < count; step += 1) {
    const port = FIRST_CHOSEN + ((start + step) % count);
    if (!taken.has(port)) yield port;
  }
}
