/** What a guest may ask the host to do to frames of its own that no honest card asks for. */
import { bootp, checksumHeader, ethernet, type ipv4, segmentHeader, udp } from "./policy-frames.ts";
import {
  BRIDGED,
  DHCP,
  type Forgery,
  own,
  ownArp,
  ownIpv4,
  PEER,
  PEER_LOW_HALF,
  question,
  tagged,
} from "./policy-forgeries.ts";

function ownUdp(tag: Buffer, header: Partial<Parameters<typeof ipv4>[0]> = {}): Buffer {
  return ownIpv4(header, udp(1000, 2000, tag));
}

/** TCP of the sender's own in a frame of `bytes` bytes of payload. */
function ownTcp(bytes: number, tag: Buffer, header: Partial<Parameters<typeof ipv4>[0]> = {}): Buffer {
  const tcp = Buffer.alloc(20);
  tcp[12] = 0x50;
  return ownIpv4({ protocol: 6, ...header }, Buffer.concat([tcp, Buffer.alloc(bytes), tag]));
}

/** Checksums that the host is to fill in where the frame has none, each in one thing unlike what an honest card asks for. */
export const UNSOUND: readonly Forgery[] = [
  { name: "TCP with UDP's place", from: "bridged", frame: (tag) => ownTcp(0, tag), header: checksumHeader(34, 6) },
  { name: "UDP with TCP's place", from: "bridged", frame: (tag) => ownUdp(tag), header: checksumHeader(34, 16) },
  {
    name: "another protocol",
    from: "bridged",
    frame: (tag) => ownTcp(0, tag, { protocol: 132 }),
    header: checksumHeader(34, 16),
  },
  { name: "TCP that starts earlier", from: "bridged", frame: (tag) => ownTcp(0, tag), header: checksumHeader(32, 16) },
  { name: "TCP that starts later", from: "bridged", frame: (tag) => ownTcp(0, tag), header: checksumHeader(36, 16) },
  {
    name: "a first fragment",
    from: "bridged",
    frame: (tag) => ownTcp(0, tag, { fragment: 0x2000 }),
    header: checksumHeader(34, 16),
  },
  {
    name: "a fragment that is far behind",
    from: "bridged",
    frame: (tag) => ownTcp(0, tag, { fragment: 0x0100 }),
    header: checksumHeader(34, 16),
  },
  {
    name: "another version",
    from: "bridged",
    frame: (tag) => ownUdp(tag, { version: 6 }),
    header: checksumHeader(34, 6),
  },
  {
    name: "a header that is too short",
    from: "bridged",
    frame: (tag) => {
      const frame = ownUdp(tag);
      frame.writeUInt8(0x44, 14);
      return frame;
    },
    header: checksumHeader(30, 6),
  },
  {
    name: "another EtherType",
    from: "bridged",
    frame: (tag) => ethernet(BRIDGED.mac, 0x88b5, own(tag)),
    header: checksumHeader(34, 6),
  },
  { name: "a VLAN tag", from: "bridged", frame: (tag) => tagged(0x8100, 7, tag), header: checksumHeader(38, 6) },
];

/**
 * Segments that the host is to cut, or their like, where what is asked for does not go with the frame. Some of it the kernel refuses from the
 * guest already, which differs from version to version.
 */
export const SEGMENT_FORGERIES: readonly Forgery[] = [
  {
    name: "TCP to be cut, whose checksum starts in the IPv4 header",
    from: "bridged",
    frame: (tag) => ownTcp(3000, tag),
    header: segmentHeader(54, 1400, { start: 20 }),
  },
  {
    name: "TCP to be cut, whose checksum is the source address",
    from: "bridged",
    frame: (tag) => ownTcp(3000, tag),
    header: segmentHeader(54, 1400, { start: 20, offset: 8 }),
  },
  {
    name: "TCP to be cut, whose checksum is elsewhere in its header",
    from: "bridged",
    frame: (tag) => ownTcp(3000, tag),
    header: segmentHeader(54, 1400, { offset: 2 }),
  },
  {
    name: "TCP to be cut, whose checksum starts in its payload",
    from: "bridged",
    frame: (tag) => ownTcp(3000, tag),
    header: segmentHeader(94, 1400, { start: 74 }),
  },
  {
    name: "TCP to be cut, with no checksum to be filled in",
    from: "bridged",
    frame: (tag) => ownTcp(3000, tag),
    header: segmentHeader(54, 1400, { flags: 0 }),
  },
  {
    name: "UDP to be cut as TCP",
    from: "bridged",
    frame: (tag) => ownIpv4({}, udp(1000, 2000, Buffer.concat([Buffer.alloc(3000), tag]))),
    header: segmentHeader(54, 1400),
  },
  {
    name: "TCP to be cut as UDP",
    from: "bridged",
    frame: (tag) => ownTcp(3000, tag),
    header: segmentHeader(42, 1400, { kind: 5 }),
  },
  {
    name: "TCP to be cut as IPv6",
    from: "bridged",
    frame: (tag) => ownTcp(3000, tag),
    header: segmentHeader(54, 1400, { kind: 4 }),
  },
  {
    name: "a fragment to be cut as TCP",
    from: "bridged",
    frame: (tag) => ownTcp(3000, tag, { fragment: 0x2002 }),
    header: segmentHeader(54, 1400),
  },
  {
    name: "TCP in IPv4 in IPv4 to be cut",
    from: "bridged",
    frame: (tag) => ownIpv4({ protocol: 4 }, ownTcp(3000, tag, { source: PEER.address }).subarray(14)),
    header: segmentHeader(74, 1400, { start: 54 }),
  },
  {
    name: "ARP to be cut as TCP",
    from: "bridged",
    frame: (tag) =>
      ownArp({ senderIp: BRIDGED.address, targetIp: PEER.address }, Buffer.concat([Buffer.alloc(3000), tag])),
    header: segmentHeader(54, 1400),
  },
  {
    name: "a frame that is too long, whose checksum is its source address",
    from: "bridged",
    frame: (tag) => ownTcp(9000, tag),
    sum: [20, PEER_LOW_HALF],
    header: checksumHeader(20, 8),
  },
  {
    name: "a frame that is too long and not to be cut",
    from: "bridged",
    frame: (tag) => ownTcp(9000, tag),
    header: checksumHeader(34, 16),
  },
  {
    name: "DHCP questions to be cut, the second one for another",
    from: "dhcp",
    frame: (tag) => {
      const first = bootp({ hardware: DHCP.mac }, Buffer.alloc(0));
      return question(Buffer.concat([first, bootp({ hardware: PEER.mac }, tag)]));
    },
    header: segmentHeader(42, 244, { offset: 6, kind: 5 }),
  },
];
