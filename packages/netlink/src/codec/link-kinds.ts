/**
 * What IFLA_LINKINFO says about a link's kind (include/uapi/linux/if_link.h, if_tun.h): bridge, vxlan, tun and tap, and
 * what a bridge says about its port.
 */
import { type AttributeCursor, NLA_F_NESTED } from "./attributes.ts";
import {
  fieldReader,
  type FieldTable,
  flagField,
  ticksField,
  u16beField,
  u16Field,
  u32Field,
  u8Field,
  wideFlagField,
  writeFields,
} from "./fields.ts";
import { formatIp, parseIp } from "./ip-text.ts";
import type { MessageWriter } from "./writer.ts";

export const IFLA_INFO_KIND = 1;
export const IFLA_INFO_DATA = 2;
export const IFLA_INFO_SLAVE_KIND = 4;
export const IFLA_INFO_SLAVE_DATA = 5;

type Mutable<Type> = { -readonly [Key in keyof Type]: Type[Key] };

/** A tun or tap device, as it was made through /dev/net/tun. */
export interface TunInfo {
  /** The uid that may open it; absent when only CAP_NET_ADMIN may. */
  readonly owner?: number;
  /** The gid that may open it. */
  readonly group?: number;
  /** Frames are preceded by struct tun_pi. */
  readonly packetInfo?: boolean;
  /** Frames are preceded by a virtio-net header. */
  readonly vnetHdr?: boolean;
  /** It stays when no process holds it open. */
  readonly persist?: boolean;
  readonly multiQueue?: boolean;
  /** Open queues, on a multi-queue device. */
  readonly queues?: number;
  readonly disabledQueues?: number;
}

const IFLA_TUN_TYPE = 3;
/** IFF_TAP, the value of IFLA_TUN_TYPE for a tap; IFF_TUN is 1. */
const TUN_TYPE_TAP = 2;

const TUN_FIELDS: FieldTable<TunInfo> = {
  owner: u32Field(1),
  group: u32Field(2),
  packetInfo: flagField(4),
  vnetHdr: flagField(5),
  persist: flagField(6),
  multiQueue: flagField(7),
  queues: u32Field(8),
  disabledQueues: u32Field(9),
};
const readTunField = fieldReader(TUN_FIELDS);

export function readTunInfo(attributes: AttributeCursor): { readonly mode: "tun" | "tap"; readonly info: TunInfo } {
  const info: Mutable<TunInfo> = {};
  let mode: "tun" | "tap" = "tun";
  while (attributes.next()) {
    if (attributes.type === IFLA_TUN_TYPE) mode = attributes.u8() === TUN_TYPE_TAP ? "tap" : "tun";
    else readTunField(attributes, info);
  }
  return { mode, info };
}

export function writeTunInfo(writer: MessageWriter, mode: "tun" | "tap", info: TunInfo): void {
  writer.u8Attribute(IFLA_TUN_TYPE, mode === "tap" ? TUN_TYPE_TAP : 1);
  writeFields(writer, TUN_FIELDS, info);
}

/** The settings of a bridge that can be given when it is made and changed later. */
export interface BridgeOptions {
  /** Spanning tree. The kernel's default is off. */
  readonly stp?: boolean;
  readonly forwardDelayMs?: number;
  readonly helloTimeMs?: number;
  readonly maxAgeMs?: number;
  /** How long a learned MAC address is kept. */
  readonly ageingTimeMs?: number;
  readonly priority?: number;
  readonly vlanFiltering?: boolean;
  readonly vlanDefaultPvid?: number;
  /** Which of the link-local group addresses 01:80:c2:00:00:0X are forwarded. */
  readonly groupForwardMask?: number;
  readonly multicastSnooping?: boolean;
  readonly multicastQuerier?: boolean;
  readonly nfCallIptables?: boolean;
  readonly nfCallIp6tables?: boolean;
  readonly nfCallArptables?: boolean;
}

/** A bridge's settings as the kernel reports them. */
export interface BridgeInfo extends BridgeOptions {
  /** `8000.020000000001`: priority and MAC address. */
  readonly bridgeId?: string;
}

const IFLA_BR_BRIDGE_ID = 11;

const BRIDGE_FIELDS: FieldTable<BridgeOptions> = {
  forwardDelayMs: ticksField(1),
  helloTimeMs: ticksField(2),
  maxAgeMs: ticksField(3),
  ageingTimeMs: ticksField(4),
  stp: wideFlagField(5),
  priority: u16Field(6),
  vlanFiltering: flagField(7),
  groupForwardMask: u16Field(9),
  multicastSnooping: flagField(23),
  multicastQuerier: flagField(25),
  nfCallIptables: flagField(36),
  nfCallIp6tables: flagField(37),
  nfCallArptables: flagField(38),
  vlanDefaultPvid: u16Field(39),
};
const readBridgeField = fieldReader(BRIDGE_FIELDS);

export function readBridgeInfo(attributes: AttributeCursor): BridgeInfo {
  const info: Mutable<BridgeInfo> = {};
  while (attributes.next()) {
    if (attributes.type === IFLA_BR_BRIDGE_ID) info.bridgeId = formatBridgeId(attributes.bytes());
    else readBridgeField(attributes, info);
  }
  return info;
}

function formatBridgeId(bytes: Buffer): string {
  return `${bytes.toString("hex", 0, 2)}.${bytes.toString("hex", 2)}`;
}

export function writeBridgeOptions(writer: MessageWriter, options: BridgeOptions): void {
  writeFields(writer, BRIDGE_FIELDS, options);
}

const PORT_STATES = ["disabled", "listening", "learning", "forwarding", "blocking"] as const;

/** The settings of a bridge port that can be changed. */
export interface BridgePortOptions {
  readonly priority?: number;
  readonly cost?: number;
  readonly hairpin?: boolean;
  /** BPDUs from this port disable it. */
  readonly guard?: boolean;
  readonly fastLeave?: boolean;
  /** The bridge learns source addresses from this port. */
  readonly learning?: boolean;
  readonly unicastFlood?: boolean;
  readonly multicastFlood?: boolean;
  readonly broadcastFlood?: boolean;
  readonly neighbourSuppress?: boolean;
  /** Isolated ports can't reach each other. */
  readonly isolated?: boolean;
  readonly locked?: boolean;
}

export interface BridgePortInfo extends BridgePortOptions {
  readonly state?: (typeof PORT_STATES)[number];
}

const IFLA_BRPORT_STATE = 1;

const BRIDGE_PORT_FIELDS: FieldTable<BridgePortOptions> = {
  priority: u16Field(2),
  cost: u32Field(3),
  hairpin: flagField(4),
  guard: flagField(5),
  fastLeave: flagField(7),
  learning: flagField(8),
  unicastFlood: flagField(9),
  multicastFlood: flagField(27),
  broadcastFlood: flagField(30),
  neighbourSuppress: flagField(32),
  isolated: flagField(33),
  locked: flagField(39),
};
const readBridgePortField = fieldReader(BRIDGE_PORT_FIELDS);

export function readBridgePortInfo(attributes: AttributeCursor): BridgePortInfo {
  const info: Mutable<BridgePortInfo> = {};
  while (attributes.next()) {
    if (attributes.type === IFLA_BRPORT_STATE) {
      const state = PORT_STATES[attributes.u8()];
      if (state !== undefined) info.state = state;
    } else readBridgePortField(attributes, info);
  }
  return info;
}

export function writeBridgePortOptions(writer: MessageWriter, options: BridgePortOptions): void {
  writeFields(writer, BRIDGE_PORT_FIELDS, options);
}

interface VxlanScalars {
  /** The network identifier, 24 bits. */
  readonly vni: number;
  /** The index of the link that carries the tunnel. */
  readonly underlay?: number;
  /** UDP port; the kernel's own default is 8472, the assigned one 4789. */
  readonly port?: number;
  readonly ttl?: number;
  readonly learning?: boolean;
  readonly ageingSeconds?: number;
}

export interface VxlanOptions extends VxlanScalars {
  /** The other end of the tunnel, or a multicast group (which needs `underlay`). */
  readonly remote?: string;
  readonly local?: string;
}

export type VxlanInfo = VxlanOptions;

const IFLA_VXLAN = { remote: 2, local: 4, remote6: 16, local6: 17 };

const VXLAN_FIELDS: FieldTable<VxlanScalars> = {
  vni: u32Field(1),
  underlay: u32Field(3),
  ttl: u8Field(5),
  learning: flagField(7),
  ageingSeconds: u32Field(8),
  port: u16beField(15),
};
const readVxlanField = fieldReader(VXLAN_FIELDS);

export function readVxlanInfo(attributes: AttributeCursor): VxlanInfo {
  const info: Mutable<VxlanInfo> = { vni: 0 };
  while (attributes.next()) {
    if (attributes.type === IFLA_VXLAN.remote || attributes.type === IFLA_VXLAN.remote6) {
      info.remote = formatIp(attributes.bytes());
    } else if (attributes.type === IFLA_VXLAN.local || attributes.type === IFLA_VXLAN.local6) {
      info.local = formatIp(attributes.bytes());
    } else readVxlanField(attributes, info);
  }
  return info;
}

export function writeVxlanOptions(writer: MessageWriter, options: VxlanOptions): void {
  const address = (text: string | undefined, type: number, type6: number) => {
    const bytes = text === undefined ? undefined : parseIp(text);
    if (bytes !== undefined) writer.bytesAttribute(bytes.length === 4 ? type : type6, bytes);
  };
  address(options.remote, IFLA_VXLAN.remote, IFLA_VXLAN.remote6);
  address(options.local, IFLA_VXLAN.local, IFLA_VXLAN.local6);
  writeFields(writer, VXLAN_FIELDS, options);
}

/** IFLA_LINKINFO's content for `kind`; `writeData` appends what IFLA_INFO_DATA holds. */
export function writeKind(writer: MessageWriter, kind: string, writeData?: () => void): void {
  writer.stringAttribute(IFLA_INFO_KIND, kind);
  if (writeData !== undefined) writer.attribute(IFLA_INFO_DATA | NLA_F_NESTED, writeData);
}
