/** Addresses: struct ifaddrmsg and the IFA_* attributes (include/uapi/linux/if_addr.h, rtnetlink(7)). */
import { badMessage } from "../errors.ts";
import { AttributeCursor } from "./attributes.ts";
import { addressBits, familyName, familyNumber, familyOf, formatIp, type IpFamily, parseIp } from "./ip-text.ts";
import { type Scope, scopeName, scopeNumber } from "./scope.ts";
import type { MessageWriter } from "./writer.ts";

export const RTM_NEWADDR = 20;
export const RTM_DELADDR = 21;
export const RTM_GETADDR = 22;

/** struct ifaddrmsg: family, prefix length, flags, scope, index. */
const BODY_BYTES = 8;
const IFA = { address: 1, local: 2, label: 3, broadcast: 4, cacheInfo: 6, flags: 8, metric: 9, protocol: 11 } as const;

const IFA_F = {
  secondary: 0x01,
  noDuplicateDetection: 0x02,
  optimistic: 0x04,
  duplicate: 0x08,
  homeAddress: 0x10,
  deprecated: 0x20,
  tentative: 0x40,
  permanent: 0x80,
  manageTemporary: 0x100,
  noPrefixRoute: 0x200,
} as const;

/** ip-address(8); `duplicate` is what `ip` calls dadfailed, `secondary` also marks IPv6 temporary addresses. */
export type AddressFlag = keyof typeof IFA_F;

/** INFINITY_LIFE_TIME. */
const FOREVER = 0xffff_ffff;

/** An address on a link. */
export interface Address {
  /** Index of the link that has it. */
  readonly link: number;
  readonly family: IpFamily;
  readonly address: string;
  readonly prefixLength: number;
  /** The other end of a point-to-point link. */
  readonly peer?: string;
  readonly broadcast?: string;
  /** IPv4: the link's name, or that with a `:suffix`. */
  readonly label?: string;
  readonly scope: Scope;
  readonly flags: readonly AddressFlag[];
  /** Seconds until the address goes; absent for ever. */
  readonly validSeconds?: number;
  /** Seconds until the address is deprecated; absent for ever. */
  readonly preferredSeconds?: number;
  readonly metric?: number;
}

/** Decodes the body of RTM_NEWADDR or RTM_DELADDR; undefined for a family other than IPv4 and IPv6. */
export function decodeAddress(body: Buffer): Address | undefined {
  if (body.length < BODY_BYTES) throw badMessage(`ifaddrmsg of ${body.length} bytes`);
  const family = familyName(body.readUInt8(0));
  if (family === undefined) return undefined;
  let bits = body.readUInt8(2);
  let local: string | undefined;
  let remote: string | undefined;
  const extra: { -readonly [Key in keyof Address]?: Address[Key] } = {};
  const attributes = new AttributeCursor(body, BODY_BYTES, body.length);
  while (attributes.next()) {
    if (attributes.type === IFA.address) remote = formatIp(attributes.bytes());
    else if (attributes.type === IFA.local) local = formatIp(attributes.bytes());
    else if (attributes.type === IFA.broadcast) extra.broadcast = formatIp(attributes.bytes());
    else if (attributes.type === IFA.label) extra.label = attributes.string();
    else if (attributes.type === IFA.flags) bits = attributes.u32();
    else if (attributes.type === IFA.metric) extra.metric = attributes.u32();
    else if (attributes.type === IFA.cacheInfo) {
      if (attributes.u32At(0) !== FOREVER) extra.preferredSeconds = attributes.u32At(0);
      if (attributes.u32At(1) !== FOREVER) extra.validSeconds = attributes.u32At(1);
    }
  }
  const address = local ?? remote;
  if (address === undefined) throw badMessage("an address message without an address");
  if (remote !== undefined && remote !== address) extra.peer = remote;
  return {
    link: body.readUInt32LE(4),
    family,
    address,
    prefixLength: body.readUInt8(1),
    scope: scopeName(body.readUInt8(3)),
    flags: (Object.keys(IFA_F) as AddressFlag[]).filter((name) => (bits & IFA_F[name]) !== 0),
    ...extra,
  };
}

/** What a request says about an address. */
export type AddressAttributes = Pick<Address, "link" | "address" | "prefixLength"> & {
  readonly [Key in "peer" | "broadcast" | "label" | "metric" | "validSeconds" | "preferredSeconds"]?:
    | Address[Key]
    | undefined;
} & { readonly scope?: Scope | undefined; readonly flags?: readonly AddressFlag[] | undefined };

/** Appends the body of RTM_NEWADDR or RTM_DELADDR. The addresses must be valid and of one family. */
export function writeAddress(writer: MessageWriter, attributes: AddressAttributes): void {
  const family = familyOf(attributes.address) ?? "inet";
  const flags = (attributes.flags ?? []).reduce((bits, name) => bits | IFA_F[name], 0);
  writer
    .u8(familyNumber(family))
    .u8(attributes.prefixLength)
    .u8(flags & 0xff);
  writer.u8(scopeNumber(attributes.scope ?? "global")).u32(attributes.link);
  const ip = (type: number, text: string | undefined) => {
    const bytes = text === undefined ? undefined : parseIp(text);
    if (bytes !== undefined) writer.bytesAttribute(type, bytes);
  };
  ip(IFA.local, attributes.address);
  ip(IFA.address, attributes.peer ?? attributes.address);
  ip(IFA.broadcast, attributes.broadcast);
  if (attributes.label !== undefined) writer.stringAttribute(IFA.label, attributes.label);
  if (flags > 0xff) writer.u32Attribute(IFA.flags, flags);
  if (attributes.metric !== undefined) writer.u32Attribute(IFA.metric, attributes.metric);
  const { preferredSeconds = FOREVER, validSeconds = FOREVER } = attributes;
  if (preferredSeconds !== FOREVER || validSeconds !== FOREVER) {
    writer.attribute(IFA.cacheInfo, () => writer.u32(preferredSeconds).u32(validSeconds).u32(0).u32(0));
  }
}

/** The body of a dump of addresses, of one link where `index` is not 0. */
export function writeAddressRequest(writer: MessageWriter, family: IpFamily | undefined, index: number): void {
  writer.u8(familyNumber(family)).u8(0).u8(0).u8(0).u32(index);
}

/** The broadcast address of an IPv4 network: every host bit set. Undefined for /31, /32 and IPv6, which have none. */
export function broadcastAddress(address: string, prefixLength: number): string | undefined {
  const bytes = parseIp(address);
  if (bytes === undefined || bytes.length !== 4 || prefixLength > addressBits("inet") - 2) return undefined;
  const hostBits = 2 ** (32 - prefixLength) - 1;
  const number = bytes.readUInt32BE(0);
  const broadcast = Buffer.alloc(4);
  broadcast.writeUInt32BE(number - (number % (hostBits + 1)) + hostBits, 0);
  return formatIp(broadcast);
}
