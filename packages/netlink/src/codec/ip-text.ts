/** Addresses as text and as bytes: IPv4 dotted quad, IPv6 as RFC 5952 writes it, MAC as six hexadecimal pairs. */
import { isIPv4, isIPv6 } from "node:net";
import { badMessage } from "../errors.ts";

/** AF_INET and AF_INET6 as this package names them. */
export type IpFamily = "inet" | "inet6";

export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_BRIDGE = 7;
export const AF_INET6 = 10;

/** The protocol's number of a family; AF_UNSPEC for none. */
export function familyNumber(family: IpFamily | undefined): number {
  if (family === undefined) return AF_UNSPEC;
  return family === "inet" ? AF_INET : AF_INET6;
}

/** The family of a number, or undefined for families that this package does not speak. */
export function familyName(number: number): IpFamily | undefined {
  if (number === AF_INET) return "inet";
  return number === AF_INET6 ? "inet6" : undefined;
}

/** Length of a family's address in bits. */
export function addressBits(family: IpFamily): number {
  return family === "inet" ? 32 : 128;
}

/** The address's family, or undefined when `text` is not an address. Zone ids (`%eth0`) are not part of an address. */
export function familyOf(text: string): IpFamily | undefined {
  if (isIPv4(text)) return "inet";
  return isIPv6(text) && !text.includes("%") ? "inet6" : undefined;
}

/** The bytes of an address; undefined when `text` is not one. */
export function parseIp(text: string): Buffer | undefined {
  const family = familyOf(text);
  if (family === undefined) return undefined;
  return family === "inet" ? Buffer.from(text.split(".").map(Number)) : parseIpv6(text);
}

/** The text of 4 or 16 address bytes. EBADMSG for any other length. */
export function formatIp(bytes: Buffer): string {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  if (bytes.length === 16) return formatIpv6(bytes);
  throw badMessage(`an IP address of ${bytes.length} bytes`);
}

/** The six bytes of `02:00:00:00:00:01`; undefined when `text` is not a MAC address. */
export function parseMac(text: string): Buffer | undefined {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text) ? Buffer.from(text.replaceAll(":", ""), "hex") : undefined;
}

/** The hexadecimal pair of each byte. */
const PAIRS: readonly string[] = Array.from({ length: 256 }, (_none, byte) => byte.toString(16).padStart(2, "0"));

/** Link-layer address bytes as pairs with colons; an empty text for none. */
export function formatMac(bytes: Buffer): string {
  let text = "";
  // A host lists thousands: joining and matching takes several times as long.
  for (const byte of bytes) text += text === "" ? PAIRS[byte] : `:${PAIRS[byte]}`;
  return text;
}

function parseIpv6(text: string): Buffer {
  const withoutQuad = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_quad, a: string, b: string, c: string, d: string) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((word) => word.toString(16)).join(":"),
  );
  const [head = "", tail] = withoutQuad.split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros: string[] = Array.from({ length: tail === undefined ? 0 : 8 - before.length - after.length }, () => "0");
  const bytes = Buffer.alloc(16);
  for (const [index, word] of [...before, ...zeros, ...after].entries()) {
    bytes.writeUInt16BE(Number.parseInt(word, 16), index * 2);
  }
  return bytes;
}

function formatIpv6(bytes: Buffer): string {
  const words = Array.from({ length: 8 }, (_none, index) => bytes.readUInt16BE(index * 2));
  const gap = longestZeroRun(words);
  const last = `${bytes.subarray(12).join(".")}`;
  // inet_ntop, and therefore ip(8), writes these two ranges with a dotted quad.
  if (gap.start === 0 && gap.length === 6) return `::${last}`;
  if (gap.start === 0 && gap.length === 5 && words[5] === 0xffff) return `::ffff:${last}`;
  const hex = words.map((word) => word.toString(16));
  if (gap.length < 2) return hex.join(":");
  return `${hex.slice(0, gap.start).join(":")}::${hex.slice(gap.start + gap.length).join(":")}`;
}

function longestZeroRun(words: readonly number[]): { start: number; length: number } {
  let best = { start: -1, length: 0 };
  let start = 0;
  for (let index = 0; index <= words.length; index++) {
    if (words[index] === 0) continue;
    if (index - start > best.length) best = { start, length: index - start };
    start = index + 1;
  }
  return best;
}
