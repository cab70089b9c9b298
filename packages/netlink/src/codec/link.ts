/** Links: struct ifinfomsg and the IFLA_* attributes (include/uapi/linux/if_link.h, rtnetlink(7)). */
import { badMessage } from "../errors.ts";
import { AttributeCursor, NLA_F_NESTED } from "./attributes.ts";
import { AF_BRIDGE, AF_INET6, formatMac, parseMac } from "./ip-text.ts";
import {
  type BridgeInfo,
  type BridgePortInfo,
  type BridgePortOptions,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_INFO_SLAVE_DATA,
  IFLA_INFO_SLAVE_KIND,
  readBridgeInfo,
  readBridgePortInfo,
  readTunInfo,
  readVxlanInfo,
  type TunInfo,
  type VxlanInfo,
  writeBridgePortOptions,
} from "./link-kinds.ts";
import { type LinkCounters, readLinkCounters } from "./stats.ts";
import type { MessageWriter } from "./writer.ts";

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
export const RTM_SETLINK = 19;

/** IFNAMSIZ - 1: the longest link name in bytes. */
export const MAX_NAME_BYTES = 15;
/** IFALIASZ - 1: the longest alias in bytes. */
export const MAX_ALIAS_BYTES = 255;

/** struct ifinfomsg: family, padding, type, index, flags, change. */
export const LINK_BODY_BYTES = 16;

/** IFLA_*. */
export const IFLA = {
  address: 1,
  broadcast: 2,
  name: 3,
  mtu: 4,
  link: 5,
  qdisc: 6,
  stats: 7,
  master: 10,
  protocolInfo: 12,
  txQueueLength: 13,
  operState: 16,
  linkInfo: 18,
  alias: 20,
  stats64: 23,
  afSpec: 26,
  group: 27,
  extMask: 29,
  promiscuity: 30,
  txQueues: 31,
  carrier: 33,
  carrierChanges: 35,
  linkNamespaceId: 37,
  propertyList: 52,
  alternativeName: 53,
} as const;

/** RTEXT_FILTER_SKIP_STATS: leave the IPv6 counters out of the answer. The kernel sends IFLA_STATS64 all the same. */
const SKIP_STATS = 1 << 3;
/** IFLA_INET6_ADDR_GEN_MODE and its value for "no link-local address". */
const INET6_ADDRESS_GENERATION = 8;
const ADDRESS_GENERATION = ["eui64", "none", "stable-privacy", "random"] as const;

/** How the kernel makes a link's IPv6 link-local address; `none` keeps a guest's tap free of host addresses. */
export type AddressGeneration = (typeof ADDRESS_GENERATION)[number];

const IFF = {
  up: 1 << 0,
  broadcast: 1 << 1,
  loopback: 1 << 3,
  pointToPoint: 1 << 4,
  running: 1 << 6,
  noArp: 1 << 7,
  promiscuous: 1 << 8,
  allMulticast: 1 << 9,
  multicast: 1 << 12,
  lowerUp: 1 << 16,
  dormant: 1 << 17,
} as const;

/** netdevice(7): `up` is what was asked for, `running` what works, `lowerUp` that there is a carrier. */
export type LinkFlags = Readonly<Record<keyof typeof IFF, boolean>>;

/** RFC 2863 operational states, in the order of IF_OPER_*. */
const OPER_STATES = ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"] as const;
export type OperState = (typeof OPER_STATES)[number];

/** A network interface as the kernel describes it. */
export interface Link {
  readonly index: number;
  readonly name: string;
  /** The driver's kind: `bridge`, `tun` (taps too), `veth`, …; absent for hardware and lo. */
  readonly kind?: string;
  /** Absent for links without a link-layer address. */
  readonly mac?: string;
  readonly broadcast?: string;
  readonly mtu: number;
  readonly flags: LinkFlags;
  readonly operState: OperState;
  readonly carrier?: boolean;
  readonly carrierChanges?: number;
  /** Index of the bridge or other master. */
  readonly master?: number;
  /** Index of the link below or, for veth, of the peer. */
  readonly parent?: number;
  /** The namespace id of `parent`, when that is another namespace. */
  readonly parentNamespaceId?: number;
  readonly alias?: string;
  /** Link group; 0 is everything that was never put into one. */
  readonly group: number;
  readonly qdisc?: string;
  readonly txQueueLength?: number;
  readonly promiscuity?: number;
  readonly alternativeNames: readonly string[];
  /** Absent where counters were asked to be left out. */
  readonly stats64?: LinkCounters;
  readonly addressGeneration?: AddressGeneration;
  readonly tap?: TunInfo;
  readonly tun?: TunInfo;
  readonly bridge?: BridgeInfo;
  readonly bridgePort?: BridgePortInfo;
  readonly vxlan?: VxlanInfo;
}

/** A link message's body: which link, and what of it. */
export interface LinkMessage {
  /** AF_BRIDGE where a bridge speaks about its port (a detach is RTM_DELLINK of this family), else AF_UNSPEC. */
  readonly fromBridge: boolean;
  readonly link: Link;
}

type MutableLink = { -readonly [Key in keyof Link]: Link[Key] };

/** Which link a body of RTM_NEWLINK or RTM_DELLINK is about; 0, which none has, where that is cut off. */
export function linkIndexOf(body: Buffer): number {
  return body.length < LINK_BODY_BYTES ? 0 : body.readInt32LE(4);
}

/** Decodes the body of RTM_NEWLINK or RTM_DELLINK; `withCounters` false leaves the counters out. */
export function decodeLink(body: Buffer, withCounters = true): LinkMessage {
  if (body.length < LINK_BODY_BYTES) throw badMessage(`ifinfomsg of ${body.length} bytes`);
  const alternativeNames: string[] = [];
  const link: MutableLink = {
    index: body.readInt32LE(4),
    name: "",
    mtu: 0,
    flags: readFlags(body.readUInt32LE(8)),
    operState: "unknown",
    group: 0,
    alternativeNames,
  };
  const attributes = new AttributeCursor(body, LINK_BODY_BYTES, body.length);
  while (attributes.next()) {
    switch (attributes.type) {
      case IFLA.name:
        link.name = attributes.string();
        break;
      case IFLA.address:
        if (attributes.size > 0) link.mac = formatMac(attributes.bytes());
        break;
      case IFLA.broadcast:
        if (attributes.size > 0) link.broadcast = formatMac(attributes.bytes());
        break;
      case IFLA.mtu:
        link.mtu = attributes.u32();
        break;
      case IFLA.link:
        // 0 is what a tunnel over no particular link says.
        if (attributes.u32() !== 0) link.parent = attributes.u32();
        break;
      case IFLA.linkNamespaceId:
        link.parentNamespaceId = attributes.i32();
        break;
      case IFLA.qdisc:
        link.qdisc = attributes.string();
        break;
      case IFLA.master:
        link.master = attributes.u32();
        break;
      case IFLA.txQueueLength:
        link.txQueueLength = attributes.u32();
        break;
      case IFLA.operState:
        link.operState = OPER_STATES[attributes.u8()] ?? "unknown";
        break;
      case IFLA.linkInfo:
        readLinkInfo(attributes.nested(), link);
        break;
      case IFLA.alias:
        link.alias = attributes.string();
        break;
      case IFLA.stats64:
        if (withCounters) link.stats64 = readLinkCounters(attributes);
        break;
      case IFLA.afSpec:
        readAfSpec(attributes.nested(), link, body.readUInt8(0));
        break;
      case IFLA.group:
        link.group = attributes.u32();
        break;
      case IFLA.promiscuity:
        link.promiscuity = attributes.u32();
        break;
      case IFLA.carrier:
        link.carrier = attributes.u8() !== 0;
        break;
      case IFLA.carrierChanges:
        link.carrierChanges = attributes.u32();
        break;
      case IFLA.propertyList:
        readAlternativeNames(attributes.nested(), alternativeNames);
        break;
      case IFLA.protocolInfo:
        if (body.readUInt8(0) === AF_BRIDGE) link.bridgePort = readBridgePortInfo(attributes.nested());
        break;
      default:
        break;
    }
  }
  return { fromBridge: body.readUInt8(0) === AF_BRIDGE, link };
}

function readFlags(bits: number): LinkFlags {
  return {
    up: (bits & IFF.up) !== 0,
    broadcast: (bits & IFF.broadcast) !== 0,
    loopback: (bits & IFF.loopback) !== 0,
    pointToPoint: (bits & IFF.pointToPoint) !== 0,
    running: (bits & IFF.running) !== 0,
    noArp: (bits & IFF.noArp) !== 0,
    promiscuous: (bits & IFF.promiscuous) !== 0,
    allMulticast: (bits & IFF.allMulticast) !== 0,
    multicast: (bits & IFF.multicast) !== 0,
    lowerUp: (bits & IFF.lowerUp) !== 0,
    dormant: (bits & IFF.dormant) !== 0,
  };
}

/** The kernel puts the kind before its data, in both pairs. */
function readLinkInfo(attributes: AttributeCursor, link: MutableLink): void {
  let portKind = "";
  while (attributes.next()) {
    if (attributes.type === IFLA_INFO_KIND) link.kind = attributes.string();
    else if (attributes.type === IFLA_INFO_DATA) readKindData(attributes, link);
    else if (attributes.type === IFLA_INFO_SLAVE_KIND) portKind = attributes.string();
    else if (attributes.type === IFLA_INFO_SLAVE_DATA && portKind === "bridge") {
      link.bridgePort = readBridgePortInfo(attributes.nested());
    }
  }
}

function readKindData(attributes: AttributeCursor, link: MutableLink): void {
  if (link.kind === "tun") {
    const { mode, info } = readTunInfo(attributes.nested());
    link[mode] = info;
  } else if (link.kind === "bridge") link.bridge = readBridgeInfo(attributes.nested());
  else if (link.kind === "vxlan") link.vxlan = readVxlanInfo(attributes.nested());
}

/** In messages of AF_BRIDGE, IFLA_AF_SPEC holds VLANs instead of families. */
function readAfSpec(families: AttributeCursor, link: MutableLink, messageFamily: number): void {
  if (messageFamily === AF_BRIDGE) return;
  while (families.next()) {
    if (families.type !== AF_INET6) continue;
    const settings = families.nested();
    while (settings.next()) {
      if (settings.type !== INET6_ADDRESS_GENERATION) continue;
      const mode = ADDRESS_GENERATION[settings.u8()];
      if (mode !== undefined) link.addressGeneration = mode;
    }
  }
}

function readAlternativeNames(properties: AttributeCursor, names: string[]): void {
  while (properties.next()) {
    if (properties.type === IFLA.alternativeName) names.push(properties.string());
  }
}

/** What a request says about a link. Absent fields are left as they are. */
export interface LinkAttributes {
  readonly name?: string | undefined;
  readonly mac?: string | undefined;
  readonly mtu?: number | undefined;
  readonly up?: boolean | undefined;
  /** Index of the master; 0 detaches. */
  readonly master?: number | undefined;
  readonly alias?: string | undefined;
  readonly group?: number | undefined;
  readonly txQueueLength?: number | undefined;
  /** How many queues to make it with. */
  readonly txQueues?: number | undefined;
  /** Index of the link below. */
  readonly parent?: number | undefined;
  readonly carrier?: boolean | undefined;
  readonly addressGeneration?: AddressGeneration | undefined;
}

/** Appends struct ifinfomsg and the attributes. `index` 0 names the link by IFLA_IFNAME. */
export function writeLink(writer: MessageWriter, index: number, attributes: LinkAttributes): void {
  const { up } = attributes;
  writer.u32(0).i32(index);
  writer.u32(up === true ? IFF.up : 0).u32(up === undefined ? 0 : IFF.up);
  if (attributes.name !== undefined) writer.stringAttribute(IFLA.name, attributes.name);
  const mac = attributes.mac === undefined ? undefined : parseMac(attributes.mac);
  if (mac !== undefined) writer.bytesAttribute(IFLA.address, mac);
  if (attributes.mtu !== undefined) writer.u32Attribute(IFLA.mtu, attributes.mtu);
  if (attributes.parent !== undefined) writer.u32Attribute(IFLA.link, attributes.parent);
  if (attributes.master !== undefined) writer.u32Attribute(IFLA.master, attributes.master);
  if (attributes.txQueues !== undefined) writer.u32Attribute(IFLA.txQueues, attributes.txQueues);
  if (attributes.txQueueLength !== undefined) writer.u32Attribute(IFLA.txQueueLength, attributes.txQueueLength);
  // Not NUL-terminated: the kernel takes an alias's length as it is, and an empty one removes it.
  if (attributes.alias !== undefined) writer.bytesAttribute(IFLA.alias, Buffer.from(attributes.alias, "utf8"));
  if (attributes.group !== undefined) writer.u32Attribute(IFLA.group, attributes.group);
  if (attributes.carrier !== undefined) writer.u8Attribute(IFLA.carrier, attributes.carrier ? 1 : 0);
  const { addressGeneration } = attributes;
  if (addressGeneration !== undefined) writeAddressGeneration(writer, addressGeneration);
}

function writeAddressGeneration(writer: MessageWriter, mode: AddressGeneration): void {
  writer.attribute(IFLA.afSpec | NLA_F_NESTED, () =>
    writer.attribute(AF_INET6 | NLA_F_NESTED, () =>
      writer.u8Attribute(INET6_ADDRESS_GENERATION, ADDRESS_GENERATION.indexOf(mode)),
    ),
  );
}

/** Appends IFLA_LINKINFO; `writeContent` appends what is in it. */
export function writeLinkInfo(writer: MessageWriter, writeContent: () => void): void {
  writer.attribute(IFLA.linkInfo | NLA_F_NESTED, writeContent);
}

/** The body of RTM_SETLINK of family AF_BRIDGE: settings of a bridge's port. */
export function writeBridgePort(writer: MessageWriter, index: number, options: BridgePortOptions): void {
  writer.u8(AF_BRIDGE).u8(0).u16(0).i32(index).u32(0).u32(0);
  writer.attribute(IFLA.protocolInfo | NLA_F_NESTED, () => writeBridgePortOptions(writer, options));
}

export interface LinkFilter {
  readonly master?: number | undefined;
  readonly kind?: string | undefined;
  readonly stats?: boolean | undefined;
}

/** The body of RTM_GETLINK: one link by index or name, or a dump with filters that the kernel applies. */
export function writeLinkRequest(writer: MessageWriter, link: number | string | undefined, filter: LinkFilter): void {
  writeLink(writer, typeof link === "number" ? link : 0, {
    name: typeof link === "string" ? link : undefined,
    master: filter.master,
  });
  if (filter.stats === false) writer.u32Attribute(IFLA.extMask, SKIP_STATS);
  const { kind } = filter;
  if (kind !== undefined) writeLinkInfo(writer, () => writer.stringAttribute(IFLA_INFO_KIND, kind));
}
