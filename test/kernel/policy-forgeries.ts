/** The catalogue of what a hostile guest sends: each entry one way to be someone else, or to be heard where it must not be. */
import { arp, bootp, checksumHeader, ethernet, ipv4, segmentHeader, summingTo, udp } from "./policy-frames.ts";
import { GATEWAY, GATEWAY_MAC } from "./policy-lan.ts";

export const BRIDGED = { vmId: 1, tap: "vttap-evil", mac: "02:77:00:00:00:01", address: "10.77.0.11" } as const;
/** Its tap has a name that a user chose. */
export const DHCP = { vmId: 2, tap: "by-hand.2", mac: "02:77:00:00:00:02", address: "10.77.0.12" } as const;
export const PEER = { vmId: 3, tap: "vttap-peer", mac: "02:77:00:00:00:03", address: "10.77.0.13" } as const;
export const STRANGER = { tap: "vttap-none", mac: "02:77:00:00:00:04", address: "10.77.0.14" } as const;

/** The last two bytes of the peer's address: what a checksum attack is to put into the place of the sender's own. */
export const PEER_LOW_HALF = Number(PEER.address.split(".")[3]);

export const FOREIGN_MAC = "02:ee:ee:ee:ee:ee";

export interface Forgery {
  readonly name: string;
  readonly from: "bridged" | "dhcp" | "stranger";
  /** The frame; `tag` is in it, so that whoever receives it can be told. */
  readonly frame: (tag: Buffer) => Buffer;
  /** What goes before it on the tap; zeros where it is absent. */
  readonly header?: Buffer;
  /** Two bytes are added, such that a sum from the first number on comes to the second: see {@link finished}. */
  readonly sum?: readonly [start: number, value: number];
  /** Bridges never forward it: with the rules off it shows in what the bridge learns. */
  readonly linkLocal?: true;
  /** The filters at the tap drop it before any rule could count it. */
  readonly uncounted?: true;
  /** A source that the bridge learns with the rules off, and must not with them on. */
  readonly teaches?: string;
}

/** The frame as it is sent: with what makes its checksum the one that is wanted. */
export function finished({ sum }: Forgery, frame: Buffer): Buffer {
  return sum === undefined ? frame : summingTo(frame, ...sum);
}

/** UDP from the sender's own lease, which would pass if nothing else were wrong. */
export function own(tag: Buffer): Buffer {
  return ipv4({ source: BRIDGED.address }, udp(1000, 2000, tag));
}

export function ownIpv4(header: Partial<Parameters<typeof ipv4>[0]>, payload: Buffer): Buffer {
  return ethernet(BRIDGED.mac, 0x0800, ipv4({ source: BRIDGED.address, ...header }, payload));
}

export function ownArp(
  message: Omit<Parameters<typeof arp>[0], "senderMac"> & { senderMac?: string },
  tag: Buffer,
): Buffer {
  return ethernet(BRIDGED.mac, 0x0806, arp({ senderMac: BRIDGED.mac, ...message }, tag));
}

export function question(payload: Buffer, source = "0.0.0.0"): Buffer {
  return ethernet(DHCP.mac, 0x0800, ipv4({ source }, udp(68, 67, payload)));
}

/** A VLAN tag: the EtherType says which kind; then its id, and the frame that it hides. */
export function tagged(type: number, vlan: number, tag: Buffer, inner = 0x0800): Buffer {
  const control = Buffer.from([vlan >> 8, vlan & 255, inner >> 8, inner & 255]);
  return ethernet(BRIDGED.mac, type, Buffer.concat([control, own(tag)]));
}

function advertisement(tag: Buffer): Buffer {
  const header = Buffer.from("6000000000183aff", "hex");
  const addresses = Buffer.from("fe80000000000000000000000000000eff020000000000000000000000000001", "hex");
  return Buffer.concat([
    header,
    addresses,
    Buffer.from("860000004008070800000000000000000000000000000000", "hex"),
    tag,
  ]);
}

const BPDU = Buffer.from("4242030000000000000000000000000000000000000000000000000000000080010000140002000f00", "hex");
const BRIDGE_GROUP = "01:80:c2:00:00:00";
const LLDP_GROUP = "01:80:c2:00:00:0e";

export const FORGERIES: readonly Forgery[] = [
  {
    name: "IPv4 from a foreign MAC",
    from: "bridged",
    frame: (tag) => ethernet(FOREIGN_MAC, 0x0800, own(tag)),
    teaches: FOREIGN_MAC,
  },
  {
    name: "IPv4 from the peer's MAC and address",
    from: "bridged",
    frame: (tag) => ethernet(PEER.mac, 0x0800, ipv4({ source: PEER.address }, udp(1000, 2000, tag))),
    teaches: PEER.mac,
  },
  { name: "IPv4 from the gateway's MAC", from: "bridged", frame: (tag) => ethernet(GATEWAY_MAC, 0x0800, own(tag)) },
  {
    name: "IPv4 from a foreign address",
    from: "bridged",
    frame: (tag) => ownIpv4({ source: "10.77.0.99" }, udp(1000, 2000, tag)),
  },
  {
    name: "IPv4 from the peer's address",
    from: "bridged",
    frame: (tag) => ownIpv4({ source: PEER.address }, udp(1000, 2000, tag)),
  },
  {
    name: "IPv4 from an address outside",
    from: "bridged",
    frame: (tag) => ownIpv4({ source: "198.51.100.7" }, udp(1000, 2000, tag)),
  },
  {
    name: "IPv4 from no address",
    from: "bridged",
    frame: (tag) => ownIpv4({ source: "0.0.0.0" }, udp(1000, 2000, tag)),
  },
  {
    name: "ICMP from the peer's address",
    from: "bridged",
    frame: (tag) => ownIpv4({ source: PEER.address, protocol: 1 }, tag),
  },
  {
    name: "a later fragment from the peer's address",
    from: "bridged",
    frame: (tag) => ownIpv4({ source: PEER.address, fragment: 0x0002 }, tag),
  },
  {
    name: "IPv4 whose version is 6",
    from: "bridged",
    frame: (tag) => ownIpv4({ version: 6 }, udp(1000, 2000, tag)),
  },
  {
    name: "IPv4 that says it is longer than the frame",
    from: "bridged",
    frame: (tag) => ownIpv4({ lie: 400 }, udp(67, 68, tag)),
  },
  {
    name: "an ARP answer that claims the gateway's address",
    from: "bridged",
    frame: (tag) => ownArp({ operation: 2, senderIp: GATEWAY, targetIp: PEER.address }, tag),
  },
  {
    name: "an ARP announcement of the peer's address",
    from: "bridged",
    frame: (tag) => ownArp({ senderIp: PEER.address, targetIp: PEER.address }, tag),
  },
  {
    name: "an ARP question from the peer's address to the host",
    from: "bridged",
    frame: (tag) => ownArp({ senderIp: PEER.address, targetIp: GATEWAY }, tag),
  },
  {
    name: "an ARP answer whose sender is not the frame's",
    from: "bridged",
    frame: (tag) =>
      ownArp({ operation: 2, senderMac: FOREIGN_MAC, senderIp: BRIDGED.address, targetIp: PEER.address }, tag),
  },
  {
    name: "an ARP probe for the peer's address",
    from: "bridged",
    frame: (tag) => ownArp({ senderIp: "0.0.0.0", targetIp: PEER.address }, tag),
  },
  {
    name: "an ARP answer from no address",
    from: "bridged",
    frame: (tag) => ownArp({ operation: 2, senderIp: "0.0.0.0", targetIp: BRIDGED.address }, tag),
  },
  {
    name: "ARP of another hardware type",
    from: "bridged",
    frame: (tag) => ownArp({ hardware: 6, senderIp: BRIDGED.address, targetIp: PEER.address }, tag),
  },
  {
    name: "ARP with hardware addresses of 8 bytes",
    from: "bridged",
    frame: (tag) => ownArp({ hardwareLength: 8, senderIp: BRIDGED.address, targetIp: PEER.address }, tag),
  },
  {
    name: "reverse ARP",
    from: "bridged",
    frame: (tag) =>
      ethernet(
        BRIDGED.mac,
        0x8035,
        arp({ operation: 3, senderMac: BRIDGED.mac, senderIp: "0.0.0.0", targetIp: "0.0.0.0" }, tag),
      ),
  },
  {
    name: "an IPv6 router advertisement",
    from: "bridged",
    frame: (tag) => ethernet(BRIDGED.mac, 0x86dd, advertisement(tag), "33:33:00:00:00:01"),
  },
  {
    name: "IPv6 from a foreign MAC",
    from: "bridged",
    frame: (tag) => ethernet("02:ee:ee:ee:ee:06", 0x86dd, advertisement(tag)),
    teaches: "02:ee:ee:ee:ee:06",
  },
  { name: "a VLAN tag before good IPv4", from: "bridged", frame: (tag) => tagged(0x8100, 7, tag) },
  { name: "a priority tag before good IPv4", from: "bridged", frame: (tag) => tagged(0x8100, 0, tag) },
  { name: "a service VLAN tag before good IPv4", from: "bridged", frame: (tag) => tagged(0x88a8, 7, tag) },
  {
    name: "two VLAN tags before good IPv4",
    from: "bridged",
    frame: (tag) => ethernet(BRIDGED.mac, 0x88a8, Buffer.concat([Buffer.from([0, 7, 0x81, 0, 0, 8, 8, 0]), own(tag)])),
  },
  {
    name: "a VLAN tag before ARP for the gateway's address",
    from: "bridged",
    frame: (tag) =>
      ethernet(
        BRIDGED.mac,
        0x8100,
        Buffer.concat([
          Buffer.from([0, 7, 8, 6]),
          arp({ operation: 2, senderMac: BRIDGED.mac, senderIp: GATEWAY, targetIp: PEER.address }, tag),
        ]),
      ),
  },
  {
    name: "a BPDU",
    from: "bridged",
    frame: (tag) => ethernet(BRIDGED.mac, BPDU.length, Buffer.concat([BPDU, tag]), BRIDGE_GROUP),
    uncounted: true,
  },
  {
    name: "good IPv4 to the bridges' own group",
    from: "bridged",
    frame: (tag) => ethernet(BRIDGED.mac, 0x0800, own(tag), BRIDGE_GROUP),
    uncounted: true,
  },
  {
    name: "LLDP from a foreign MAC",
    from: "bridged",
    frame: (tag) => ethernet("02:ee:ee:ee:ee:0e", 0x88cc, tag, LLDP_GROUP),
    linkLocal: true,
    uncounted: true,
    teaches: "02:ee:ee:ee:ee:0e",
  },
  {
    name: "802.1X from a foreign MAC",
    from: "bridged",
    frame: (tag) => ethernet("02:ee:ee:ee:ee:03", 0x888e, tag, "01:80:c2:00:00:03"),
    linkLocal: true,
    uncounted: true,
    teaches: "02:ee:ee:ee:ee:03",
  },
  { name: "an experimental EtherType", from: "bridged", frame: (tag) => ethernet(BRIDGED.mac, 0x88b5, tag) },
  { name: "PPPoE discovery", from: "bridged", frame: (tag) => ethernet(BRIDGED.mac, 0x8863, tag) },
  { name: "MPLS", from: "bridged", frame: (tag) => ethernet(BRIDGED.mac, 0x8847, tag) },
  {
    name: "IPv4 behind an 802.2 SNAP header",
    from: "bridged",
    frame: (tag) => {
      const packet = Buffer.concat([Buffer.from("aaaa030000000800", "hex"), own(tag)]);
      return ethernet(BRIDGED.mac, packet.length, packet);
    },
  },
  {
    name: "a DHCP server's answer",
    from: "bridged",
    frame: (tag) => ownIpv4({}, udp(67, 68, bootp({ operation: 2, hardware: PEER.mac }, tag))),
  },
  {
    name: "a DHCP server's answer from another port",
    from: "bridged",
    frame: (tag) => ownIpv4({}, udp(1067, 68, bootp({ operation: 2, hardware: PEER.mac }, tag))),
  },
  {
    name: "the first fragment of a DHCP server's answer",
    from: "bridged",
    frame: (tag) => ownIpv4({ fragment: 0x2000 }, udp(67, 68, bootp({ operation: 2, hardware: PEER.mac }, tag))),
  },
  {
    name: "a DHCP client's question where the address is static",
    from: "bridged",
    frame: (tag) =>
      ethernet(BRIDGED.mac, 0x0800, ipv4({ source: "0.0.0.0" }, udp(68, 67, bootp({ hardware: BRIDGED.mac }, tag)))),
  },
  {
    name: "the same from the lease",
    from: "bridged",
    frame: (tag) => ownIpv4({}, udp(68, 67, bootp({ hardware: BRIDGED.mac }, tag))),
  },
  {
    name: "a DHCP question for another hardware address",
    from: "dhcp",
    frame: (tag) => question(bootp({ hardware: PEER.mac }, tag)),
  },
  {
    name: "a DHCP question through a relay that there is not",
    from: "dhcp",
    frame: (tag) => question(bootp({ hardware: DHCP.mac, relay: GATEWAY }, tag)),
  },
  { name: "a DHCP question cut short", from: "dhcp", frame: (tag) => question(tag) },
  {
    name: "a DHCP question from the peer's address",
    from: "dhcp",
    frame: (tag) => question(bootp({ hardware: DHCP.mac }, tag), PEER.address),
  },
  {
    name: "a DHCP question in fragments",
    from: "dhcp",
    frame: (tag) =>
      ethernet(
        DHCP.mac,
        0x0800,
        ipv4({ source: "0.0.0.0", fragment: 0x2000 }, udp(68, 67, bootp({ hardware: DHCP.mac }, tag))),
      ),
  },
  {
    name: "a DHCP server's answer from a DHCP client",
    from: "dhcp",
    frame: (tag) =>
      ethernet(
        DHCP.mac,
        0x0800,
        ipv4({ source: DHCP.address }, udp(67, 68, bootp({ operation: 2, hardware: PEER.mac }, tag))),
      ),
  },
  {
    name: "a DHCP client's IPv4 from an address that it was not given",
    from: "dhcp",
    frame: (tag) => ethernet(DHCP.mac, 0x0800, ipv4({ source: "10.77.0.55" }, udp(1000, 2000, tag))),
  },
  // The rest comes into being in the host: the frame is right as it is sent, and a checksum that the host fills in makes it another one.
  {
    name: "ARP whose checksum makes its sender the peer's address",
    from: "bridged",
    frame: (tag) => ownArp({ operation: 2, senderIp: BRIDGED.address, targetIp: GATEWAY }, tag),
    sum: [22, PEER_LOW_HALF],
    header: checksumHeader(22, 8),
  },
  {
    name: "ARP whose checksum changes its sender's network",
    from: "bridged",
    frame: (tag) => ownArp({ operation: 2, senderIp: BRIDGED.address, targetIp: GATEWAY }, tag),
    header: checksumHeader(22, 6),
  },
  {
    name: "ARP whose checksum changes its sender's hardware address",
    from: "bridged",
    frame: (tag) => ownArp({ operation: 2, senderIp: BRIDGED.address, targetIp: GATEWAY }, tag),
    header: checksumHeader(20, 4),
  },
  {
    name: "UDP whose checksum makes its source the peer's address",
    from: "bridged",
    frame: (tag) => ethernet(BRIDGED.mac, 0x0800, own(tag)),
    sum: [20, PEER_LOW_HALF],
    header: checksumHeader(20, 8),
  },
  {
    name: "UDP whose checksum makes it a DHCP server's answer",
    from: "bridged",
    frame: (tag) => ethernet(BRIDGED.mac, 0x0800, own(tag)),
    sum: [34, 68],
    header: checksumHeader(34, 2),
  },
  {
    name: "a DHCP question whose checksum makes it another's",
    from: "dhcp",
    frame: (tag) => question(bootp({ hardware: DHCP.mac }, tag)),
    header: checksumHeader(34, 40),
  },
  {
    name: "good frames of a tap without an entry",
    from: "stranger",
    frame: (tag) => ethernet(STRANGER.mac, 0x0800, ipv4({ source: STRANGER.address }, udp(1000, 2000, tag))),
    teaches: STRANGER.mac,
  },
];

/** A BPDU from a MAC that is not the guest's. */
export function foreignBpdu(tag: Buffer): Buffer {
  return ethernet(FOREIGN_MAC, BPDU.length, Buffer.concat([BPDU, tag]), BRIDGE_GROUP);
}

/** What the guests may send: by whom, and the frame. */
export const LEGITIMATE: readonly Forgery[] = [
  { name: "UDP", from: "bridged", frame: (tag) => ownIpv4({}, udp(1000, 2000, tag)) },
  { name: "DNS", from: "bridged", frame: (tag) => ownIpv4({ destination: GATEWAY }, udp(1000, 53, tag)) },
  { name: "ICMP", from: "bridged", frame: (tag) => ownIpv4({ protocol: 1 }, Buffer.concat([Buffer.alloc(8), tag])) },
  { name: "TCP", from: "bridged", frame: (tag) => ownIpv4({ protocol: 6 }, Buffer.concat([Buffer.alloc(20), tag])) },
  {
    name: "UDP whose checksum the host fills in",
    from: "bridged",
    frame: (tag) => ethernet(BRIDGED.mac, 0x0800, own(tag)),
    header: checksumHeader(34, 6),
  },
  {
    name: "TCP that the host cuts into segments",
    from: "bridged",
    frame: (tag) => {
      const tcp = Buffer.alloc(20);
      tcp[12] = 0x50;
      return ownIpv4({ protocol: 6 }, Buffer.concat([tcp, Buffer.alloc(5000), tag]));
    },
    header: segmentHeader(54, 1400),
  },
  {
    name: "ICMP whose checksum the host fills in",
    from: "bridged",
    frame: (tag) => ownIpv4({ protocol: 1 }, Buffer.concat([Buffer.alloc(8), tag])),
    header: checksumHeader(34, 2),
  },
  { name: "a first fragment", from: "bridged", frame: (tag) => ownIpv4({ fragment: 0x2000 }, udp(1000, 2000, tag)) },
  { name: "a later fragment", from: "bridged", frame: (tag) => ownIpv4({ fragment: 0x0002 }, tag) },
  {
    name: "an ARP question",
    from: "bridged",
    frame: (tag) => ownArp({ senderIp: BRIDGED.address, targetIp: PEER.address }, tag),
  },
  {
    name: "an ARP answer",
    from: "bridged",
    frame: (tag) => ownArp({ operation: 2, senderIp: BRIDGED.address, targetIp: PEER.address }, tag),
  },
  {
    name: "an ARP probe for its own address",
    from: "bridged",
    frame: (tag) => ownArp({ senderIp: "0.0.0.0", targetIp: BRIDGED.address }, tag),
  },
  {
    name: "a DHCP question before the lease",
    from: "dhcp",
    frame: (tag) => question(bootp({ hardware: DHCP.mac }, tag)),
  },
  {
    name: "a DHCP renewal from the lease",
    from: "dhcp",
    frame: (tag) => question(bootp({ hardware: DHCP.mac }, tag), DHCP.address),
  },
  {
    name: "a DHCP guest's UDP",
    from: "dhcp",
    frame: (tag) => ethernet(DHCP.mac, 0x0800, ipv4({ source: DHCP.address }, udp(1000, 2000, tag))),
  },
];
