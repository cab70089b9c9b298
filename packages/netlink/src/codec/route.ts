/** Routes: struct rtmsg, struct rtnexthop and the RTA_* attributes (include/uapi/linux/rtnetlink.h, rtnetlink(7)). */
import { badMessage } from "../errors.ts";
import { AttributeCursor } from "./attributes.ts";
import {
  AF_INET,
  AF_INET6,
  addressBits,
  familyName,
  familyNumber,
  formatIp,
  type IpFamily,
  parseIp,
} from "./ip-text.ts";
import { type Scope, scopeName, scopeNumber } from "./scope.ts";
import type { MessageWriter } from "./writer.ts";

export const RTM_NEWROUTE = 24;
export const RTM_DELROUTE = 25;
export const RTM_GETROUTE = 26;

/** RT_TABLE_MAIN. */
export const MAIN_TABLE = 254;
/** RTM_F_CLONED: an entry of a cache, not of a table. */
const RTM_F_CLONED = 0x200;

/** struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags. */
const BODY_BYTES = 12;
/** struct rtnexthop: len, flags, hops, ifindex. */
const NEXT_HOP_BYTES = 8;
const RTA = {
  destination: 1,
  outputLink: 4,
  gateway: 5,
  metric: 6,
  preferredSource: 7,
  metrics: 8,
  multipath: 9,
  cacheInfo: 12,
  table: 15,
  via: 18,
  preference: 20,
} as const;
/** RTAX_MTU inside RTA_METRICS. */
const RTAX_MTU = 2;

const TYPES = [
  "unspecified",
  "unicast",
  "local",
  "broadcast",
  "anycast",
  "multicast",
  "blackhole",
  "unreachable",
  "prohibit",
  "throw",
  "nat",
] as const;
export type RouteType = (typeof TYPES)[number];

const PROTOCOLS = { unspecified: 0, redirect: 1, kernel: 2, boot: 3, static: 4, ra: 9, dhcp: 16 } as const;
/** Who made the route, by name or by its number where it has none (rt_protos). */
export type RouteProtocol = keyof typeof PROTOCOLS | number;
const PROTOCOL_NAMES = new Map<number, RouteProtocol>(
  Object.entries(PROTOCOLS).map(([name, number]) => [number, name as RouteProtocol]),
);

const RTNH_F = { dead: 1, onLink: 4, linkDown: 16 } as const;
export type RouteFlag = keyof typeof RTNH_F;

export interface NextHop {
  readonly link: number;
  readonly gateway?: string;
  /** 1 to 256: its share of the traffic. */
  readonly weight: number;
}

/** A route of one table. */
export interface Route {
  readonly family: IpFamily;
  /** `192.168.127.0/24`, or `default`. */
  readonly destination: string;
  readonly gateway?: string;
  /** Index of the link that packets leave by; absent for multipath, blackhole and the like. */
  readonly link?: number;
  /** The source address that the host prefers for this route. */
  readonly preferredSource?: string;
  readonly metric?: number;
  readonly mtu?: number;
  readonly table: number;
  readonly protocol: RouteProtocol;
  readonly scope: Scope;
  readonly type: RouteType;
  readonly flags: readonly RouteFlag[];
  readonly nextHops?: readonly NextHop[];
  /** It has properties that are not decoded here (a service type, a source prefix, a next hop object, an encapsulation, …): it can't be told from this. */
  readonly incomplete?: true;
}

/**
 * Decodes the body of RTM_NEWROUTE or RTM_DELROUTE; undefined for a family other than IPv4 and IPv6 and for entries of a
 * route cache.
 */
export function decodeRoute(body: Buffer): Route | undefined {
  if (body.length < BODY_BYTES) throw badMessage(`rtmsg of ${body.length} bytes`);
  const family = familyName(body.readUInt8(0));
  const bits = body.readUInt32LE(8);
  if (family === undefined || (bits & RTM_F_CLONED) !== 0) return undefined;
  let destination: string | undefined;
  let table = body.readUInt8(4);
  const extra: { -readonly [Key in keyof Route]?: Route[Key] } = {};
  // A source prefix, and a service type.
  if (body.readUInt8(2) !== 0 || body.readUInt8(3) !== 0) extra.incomplete = true;
  const attributes = new AttributeCursor(body, BODY_BYTES, body.length);
  while (attributes.next()) {
    if (attributes.type === RTA.destination) destination = formatIp(attributes.bytes());
    else if (attributes.type === RTA.outputLink) extra.link = attributes.u32();
    else if (attributes.type === RTA.gateway) extra.gateway = formatIp(attributes.bytes());
    else if (attributes.type === RTA.via) extra.gateway = readVia(attributes);
    else if (attributes.type === RTA.metric) extra.metric = attributes.u32();
    else if (attributes.type === RTA.preferredSource) extra.preferredSource = formatIp(attributes.bytes());
    else if (attributes.type === RTA.table) table = attributes.u32();
    else if (attributes.type === RTA.metrics) readMetrics(attributes.nested(), extra);
    else if (attributes.type === RTA.multipath) extra.nextHops = readNextHops(attributes.bytes());
    else if (!isMute(attributes)) extra.incomplete = true;
  }
  const prefixLength = body.readUInt8(1);
  return {
    family,
    destination: formatDestination(family, destination, prefixLength),
    table,
    protocol: PROTOCOL_NAMES.get(body.readUInt8(5)) ?? body.readUInt8(5),
    scope: scopeName(body.readUInt8(6)),
    type: TYPES[body.readUInt8(7)] ?? "unspecified",
    flags: (Object.keys(RTNH_F) as RouteFlag[]).filter((name) => (bits & RTNH_F[name]) !== 0),
    ...extra,
  };
}

function formatDestination(family: IpFamily, address: string | undefined, prefixLength: number): string {
  if (prefixLength === 0) return "default";
  return `${address ?? (family === "inet" ? "0.0.0.0" : "::")}/${prefixLength}`;
}

/** struct rtvia: a gateway of another family than the route's. */
function readVia(attribute: AttributeCursor): string {
  const number = attribute.u16();
  if (number !== AF_INET && number !== AF_INET6) throw badMessage(`a gateway of address family ${number}`);
  return formatIp(attribute.bytes().subarray(2));
}

function readMetrics(metrics: AttributeCursor, into: { mtu?: number; incomplete?: true }): void {
  while (metrics.next()) {
    if (metrics.type === RTAX_MTU) into.mtu = metrics.u32();
    else into.incomplete = true;
  }
}

/** Attributes that say nothing of how the route works: its use so far, and IPv6's medium preference, which is the default (RFC 4191). */
function isMute(attribute: AttributeCursor): boolean {
  return attribute.type === RTA.cacheInfo || (attribute.type === RTA.preference && attribute.bytes()[0] === 0);
}

function readNextHops(bytes: Buffer): NextHop[] {
  const hops: NextHop[] = [];
  let at = 0;
  while (bytes.length - at >= NEXT_HOP_BYTES) {
    const length = bytes.readUInt16LE(at);
    if (length < NEXT_HOP_BYTES || length > bytes.length - at) throw badMessage(`a next hop of ${length} bytes`);
    let gateway: string | undefined;
    const attributes = new AttributeCursor(bytes, at + NEXT_HOP_BYTES, at + length);
    while (attributes.next()) {
      if (attributes.type === RTA.gateway) gateway = formatIp(attributes.bytes());
      else if (attributes.type === RTA.via) gateway = readVia(attributes);
    }
    hops.push({
      link: bytes.readInt32LE(at + 4),
      ...(gateway === undefined ? {} : { gateway }),
      weight: bytes.readUInt8(at + 3) + 1,
    });
    at += (length + 3) & ~3;
  }
  return hops;
}

/** What a request says about a route. */
export interface RouteAttributes {
  readonly family: IpFamily;
  readonly destination: string;
  readonly gateway?: string | undefined;
  readonly link?: number | undefined;
  readonly preferredSource?: string | undefined;
  readonly metric?: number | undefined;
  readonly mtu?: number | undefined;
  readonly table?: number | undefined;
  readonly protocol: RouteProtocol;
  readonly scope: Scope;
  readonly type: RouteType;
  readonly flags?: readonly RouteFlag[] | undefined;
  readonly nextHops?: readonly NextHop[] | undefined;
}

/** Appends the body of RTM_NEWROUTE or RTM_DELROUTE. The addresses must be valid. */
export function writeRoute(writer: MessageWriter, route: RouteAttributes): void {
  const [address, length] = splitDestination(route.family, route.destination);
  const table = route.table ?? MAIN_TABLE;
  const flags = (route.flags ?? []).reduce((bits, name) => bits | RTNH_F[name], 0);
  const protocol = typeof route.protocol === "number" ? route.protocol : PROTOCOLS[route.protocol];
  writer.u8(familyNumber(route.family)).u8(length).u8(0).u8(0);
  writer
    .u8(table > 0xff ? 0 : table)
    .u8(protocol)
    .u8(scopeNumber(route.scope))
    .u8(TYPES.indexOf(route.type));
  writer.u32(flags);
  const ip = (type: number, text: string | undefined) => {
    const bytes = text === undefined ? undefined : parseIp(text);
    if (bytes !== undefined) writer.bytesAttribute(type, bytes);
  };
  if (length > 0) ip(RTA.destination, address);
  writeGateway(writer, route.family, route.gateway);
  if (route.link !== undefined) writer.u32Attribute(RTA.outputLink, route.link);
  ip(RTA.preferredSource, route.preferredSource);
  if (route.metric !== undefined) writer.u32Attribute(RTA.metric, route.metric);
  if (table > 0xff) writer.u32Attribute(RTA.table, table);
  const { mtu, nextHops } = route;
  if (mtu !== undefined) writer.attribute(RTA.metrics, () => writer.u32Attribute(RTAX_MTU, mtu));
  if (nextHops !== undefined) writer.attribute(RTA.multipath, () => writeNextHops(writer, route.family, nextHops));
}

function writeGateway(writer: MessageWriter, family: IpFamily, gateway: string | undefined): void {
  const bytes = gateway === undefined ? undefined : parseIp(gateway);
  if (bytes === undefined) return;
  const sameFamily = bytes.length * 8 === addressBits(family);
  if (sameFamily) writer.bytesAttribute(RTA.gateway, bytes);
  else writer.attribute(RTA.via, () => writer.u16(bytes.length === 4 ? AF_INET : AF_INET6).raw(bytes));
}

function writeNextHops(writer: MessageWriter, family: IpFamily, hops: readonly NextHop[]): void {
  for (const hop of hops) {
    const start = writer.length;
    writer
      .u16(0)
      .u8(0)
      .u8(hop.weight - 1)
      .i32(hop.link);
    writeGateway(writer, family, hop.gateway);
    // rtnh_len is the first half of this word; flags are 0 and the weight is its last byte.
    writer.patchU32(start, (writer.length - start + (hop.weight - 1) * 0x100_0000) >>> 0);
  }
}

/** `192.168.127.0/24` → address and length; `default` → length 0; a bare address has the full length. */
export function splitDestination(family: IpFamily, destination: string): readonly [address: string, length: number] {
  if (destination === "default") return [family === "inet" ? "0.0.0.0" : "::", 0];
  const [address = "", length] = destination.split("/");
  return [address, length === undefined ? addressBits(family) : Number(length)];
}

/** The body of a dump of routes. `table` undefined is every table. */
export function writeRouteRequest(
  writer: MessageWriter,
  family: IpFamily | undefined,
  table: number | undefined,
  link: number | undefined,
): void {
  writer.u8(familyNumber(family)).u8(0).u8(0).u8(0).u32(0).u32(0);
  if (table !== undefined) writer.u32Attribute(RTA.table, table);
  if (link !== undefined) writer.u32Attribute(RTA.outputLink, link);
}
