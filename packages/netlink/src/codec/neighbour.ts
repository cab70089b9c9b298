/** Neighbours: struct ndmsg and the NDA_* attributes (include/uapi/linux/neighbour.h, arp(7)). */
import { badMessage } from "../errors.ts";
import { AttributeCursor } from "./attributes.ts";
import {
  familyName,
  familyNumber,
  familyOf,
  formatIp,
  formatMac,
  type IpFamily,
  parseIp,
  parseMac,
} from "./ip-text.ts";
import type { MessageWriter } from "./writer.ts";

export const RTM_NEWNEIGH = 28;
export const RTM_DELNEIGH = 29;
export const RTM_GETNEIGH = 30;

/** struct ndmsg: family, padding, index, state, flags, type. */
const BODY_BYTES = 12;
const NDA = { destination: 1, mac: 2, index: 8 } as const;

const NUD = {
  none: 0x00,
  incomplete: 0x01,
  reachable: 0x02,
  stale: 0x04,
  delay: 0x08,
  probe: 0x10,
  failed: 0x20,
  noarp: 0x40,
  permanent: 0x80,
} as const;

export type NeighbourState = keyof typeof NUD;

const NTF = { proxy: 0x08, externallyLearned: 0x10, router: 0x80 } as const;
export type NeighbourFlag = keyof typeof NTF;
const FLAG_NAMES = Object.keys(NTF) as readonly NeighbourFlag[];
const NO_FLAGS: readonly NeighbourFlag[] = [];

/** An IP address on a link and the link-layer address that it is reached by. */
export interface Neighbour {
  /** Index of the link. */
  readonly link: number;
  readonly family: IpFamily;
  readonly address: string;
  /** Absent while it is not known. */
  readonly mac?: string;
  readonly state: NeighbourState;
  readonly flags: readonly NeighbourFlag[];
}

const STATE_NAMES = new Map<number, NeighbourState>(
  Object.entries(NUD).map(([name, number]) => [number, name as NeighbourState]),
);

/**
 * Decodes the body of RTM_NEWNEIGH or RTM_DELNEIGH; undefined for a family other than IPv4 and IPv6 (bridges report their
 * forwarding entries as neighbours of AF_BRIDGE), and for entries without an address.
 */
export function decodeNeighbour(body: Buffer): Neighbour | undefined {
  if (body.length < BODY_BYTES) throw badMessage(`ndmsg of ${body.length} bytes`);
  const family = familyName(body.readUInt8(0));
  if (family === undefined) return undefined;
  let address: string | undefined;
  let mac: string | undefined;
  const attributes = new AttributeCursor(body, BODY_BYTES, body.length);
  while (attributes.next()) {
    if (attributes.type === NDA.destination) address = formatIp(attributes.bytes());
    else if (attributes.type === NDA.mac && attributes.size > 0) mac = formatMac(attributes.bytes());
  }
  if (address === undefined) return undefined;
  const flags = body.readUInt8(10);
  return {
    link: body.readInt32LE(4),
    family,
    address,
    ...(mac === undefined ? {} : { mac }),
    state: STATE_NAMES.get(body.readUInt16LE(8)) ?? "none",
    flags: flags === 0 ? NO_FLAGS : FLAG_NAMES.filter((name) => (flags & NTF[name]) !== 0),
  };
}

export interface NeighbourAttributes {
  readonly link: number;
  readonly address: string;
  readonly mac?: string | undefined;
  readonly state?: NeighbourState | undefined;
  readonly flags?: readonly NeighbourFlag[] | undefined;
}

/** Appends the body of RTM_NEWNEIGH or RTM_DELNEIGH. The addresses must be valid. */
export function writeNeighbour(writer: MessageWriter, attributes: NeighbourAttributes): void {
  const flags = (attributes.flags ?? []).reduce((bits, name) => bits | NTF[name], 0);
  writer.u32(familyNumber(familyOf(attributes.address))).i32(attributes.link);
  writer
    .u16(NUD[attributes.state ?? "none"])
    .u8(flags)
    .u8(0);
  const destination = parseIp(attributes.address);
  if (destination !== undefined) writer.bytesAttribute(NDA.destination, destination);
  const mac = attributes.mac === undefined ? undefined : parseMac(attributes.mac);
  if (mac !== undefined) writer.bytesAttribute(NDA.mac, mac);
}

/** The body of a dump of neighbours, of one link where `index` is not 0. */
export function writeNeighbourRequest(writer: MessageWriter, family: IpFamily | undefined, index: number): void {
  writer.u32(familyNumber(family)).i32(0).u32(0);
  if (index !== 0) writer.u32Attribute(NDA.index, index);
}
