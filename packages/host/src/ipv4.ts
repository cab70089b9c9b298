/** IPv4 arithmetic on plain numbers: just what set-up decides with. No I/O. */
import { isIPv4 } from "node:net";

/** A block of addresses: the first one as an unsigned 32-bit number, and the length of its prefix (0 to 32). */
export interface Ipv4Block {
  readonly first: number;
  readonly prefixLength: number;
}

/** A dotted quad as an unsigned 32-bit number, or undefined when the text is not exactly four decimal parts. */
export function parseIpv4(text: string): number | undefined {
  if (!isIPv4(text)) return undefined;
  return text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
}

/** The dotted quad of an unsigned 32-bit number. */
export function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
}

/** How many addresses a prefix of this length holds. */
export function blockSize(prefixLength: number): number {
  return 2 ** (32 - prefixLength);
}

/** The block that holds `address` with this prefix length: host bits are cut off. */
export function blockOf(address: number, prefixLength: number): Ipv4Block {
  const size = blockSize(prefixLength);
  return { first: Math.floor(address / size) * size, prefixLength };
}

/**
 * `192.168.127.0/24` as its address and prefix length, or undefined when it is not of that form. The address is given
 * as written: whether it has host bits is the caller's question.
 */
export function parseCidr(text: string): { readonly address: number; readonly prefixLength: number } | undefined {
  const match = /^([0-9.]+)\/([0-9]{1,2})$/.exec(text);
  if (match === null) return undefined;
  const address = parseIpv4(match[1] ?? "");
  const prefixLength = Number(match[2]);
  return address === undefined || prefixLength > 32 ? undefined : { address, prefixLength };
}

/** A block as text, such as `192.168.127.0/24`. */
export function formatBlock(block: Ipv4Block): string {
  return `${formatIpv4(block.first)}/${block.prefixLength}`;
}

/** The block's last address: the broadcast address of a subnet. */
export function lastAddress(block: Ipv4Block): number {
  return block.first + blockSize(block.prefixLength) - 1;
}

/** Whether `address` lies in `block`. */
export function blockHolds(block: Ipv4Block, address: number): boolean {
  return address >= block.first && address <= lastAddress(block);
}

/** Whether the two blocks share an address. */
export function blocksOverlap(a: Ipv4Block, b: Ipv4Block): boolean {
  return a.first <= lastAddress(b) && b.first <= lastAddress(a);
}
