/**
 * IPv4 arithmetic for the pool. An address is an unsigned 32-bit integer here: a double holds it exactly, the store sorts it numerically, and
 * nothing ever lists the addresses of a subnet, so that a /8 costs what a /30 does.
 */
import { VolantError } from "@volant/contract";

export interface Subnet {
  /** Lowest address of the subnet. */
  readonly network: number;
  readonly prefixLength: number;
}

/** The managed network's addresses. */
export interface AddressPool {
  readonly subnet: Subnet;
  /** The host's own address in the bridge, which is the guests' gateway. */
  readonly gateway: number;
}

/** A pool smaller than a /30 has no address for a guest; one larger than a /8 would be more than any private range. */
export const MIN_PREFIX_LENGTH = 8;
export const MAX_PREFIX_LENGTH = 30;

const octetPattern = /^(0|[1-9]\d{0,2})$/;

/** The address that a dotted quad names; undefined for anything else, leading zeroes included (some readers take them for octal). */
export function parseAddress(text: string): number | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let address = 0;
  for (const part of parts) {
    if (!octetPattern.test(part) || Number(part) > 255) return undefined;
    address = address * 256 + Number(part);
  }
  return address;
}

/** Dotted quad of an address. */
export function formatAddress(address: number): string {
  return [address >>> 24, (address >>> 16) & 255, (address >>> 8) & 255, address & 255].join(".");
}

/** How many addresses a subnet spans, network and broadcast included. */
export function subnetSize(subnet: Subnet): number {
  return 2 ** (32 - subnet.prefixLength);
}

export function broadcastAddress(subnet: Subnet): number {
  return subnet.network + subnetSize(subnet) - 1;
}

/**
 * The subnet that `address/prefix length` names.
 *
 * @throws VolantError `invalid` when it is no such thing, is not between /30 and /8, or has host bits set
 */
export function parseSubnet(text: string): Subnet {
  const [quad = "", length, ...rest] = text.split("/");
  const address = parseAddress(quad);
  if (address === undefined || length === undefined || rest.length > 0 || !/^\d{1,2}$/.test(length)) {
    throw new VolantError("invalid", `${JSON.stringify(text)} is not a subnet such as 192.168.127.0/24`);
  }
  const prefixLength = Number(length);
  if (prefixLength < MIN_PREFIX_LENGTH || prefixLength > MAX_PREFIX_LENGTH) {
    throw new VolantError("invalid", `subnet ${text} must be between /${MAX_PREFIX_LENGTH} and /${MIN_PREFIX_LENGTH}`);
  }
  const network = address - (address % 2 ** (32 - prefixLength));
  if (network !== address) {
    const meant = `${formatAddress(network)}/${prefixLength}`;
    throw new VolantError("invalid", `subnet ${text} has bits set after its prefix: ${meant} is the subnet around it`);
  }
  return { network, prefixLength };
}

export function formatSubnet(subnet: Subnet): string {
  return `${formatAddress(subnet.network)}/${subnet.prefixLength}`;
}

/** Dotted netmask of a prefix length from 0 to 32. */
export function formatNetmask(prefixLength: number): string {
  return formatAddress(2 ** 32 - 2 ** (32 - prefixLength));
}

/** Whether a guest or the host may have this address: in the subnet, and neither its network nor its broadcast address (RFC 1122, 3.2.1.3). */
export function isUsable(subnet: Subnet, address: number): boolean {
  return address > subnet.network && address < broadcastAddress(subnet);
}

/** Whether the pool may lease this address. */
export function isLeasable(pool: AddressPool, address: number): boolean {
  return isUsable(pool.subnet, address) && address !== pool.gateway;
}
