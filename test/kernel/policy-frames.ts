/** Ethernet frames built by hand, right and wrong ones, for the tests of the guests' policy. */

export function macBytes(mac: string): Buffer {
  return Buffer.from(mac.replaceAll(":", ""), "hex");
}

export function addressBytes(address: string): Buffer {
  return Buffer.from(address.split(".").map(Number));
}

function u16(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 2);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, index * 2);
  return bytes;
}

export const BROADCAST = "ff:ff:ff:ff:ff:ff";

export function ethernet(source: string, type: number, payload: Buffer, destination = BROADCAST): Buffer {
  return Buffer.concat([macBytes(destination), macBytes(source), u16(type), payload]);
}

interface Arp {
  readonly operation?: number;
  readonly senderMac: string;
  readonly senderIp: string;
  readonly targetIp: string;
  readonly hardware?: number;
  readonly hardwareLength?: number;
}

/** RFC 826. `tag` follows as padding. */
export function arp({ operation = 1, hardware = 1, hardwareLength = 6, ...rest }: Arp, tag: Buffer): Buffer {
  const head = Buffer.concat([u16(hardware, 0x0800), Buffer.from([hardwareLength, 4]), u16(operation)]);
  const sender = [macBytes(rest.senderMac), addressBytes(rest.senderIp)];
  return Buffer.concat([head, ...sender, Buffer.alloc(6), addressBytes(rest.targetIp), tag]);
}

interface Ipv4 {
  readonly source: string;
  readonly destination?: string;
  readonly protocol?: number;
  /** The flags and the fragment's offset as they are on the wire. */
  readonly fragment?: number;
  readonly version?: number;
  /** Added to the length that the header states. */
  readonly lie?: number;
}

/** RFC 791, with a right header checksum, so that only what the test is about is wrong. */
export function ipv4(header: Ipv4, payload: Buffer): Buffer {
  const { source, destination = "255.255.255.255", protocol = 17, fragment = 0, version = 4, lie = 0 } = header;
  const bytes = Buffer.concat([
    Buffer.from([version * 16 + 5, 0]),
    u16(20 + payload.length + lie, 1, fragment),
    Buffer.from([64, protocol, 0, 0]),
    addressBytes(source),
    addressBytes(destination),
  ]);
  let sum = 0;
  for (let at = 0; at < 20; at += 2) sum += bytes.readUInt16BE(at);
  sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  bytes.writeUInt16BE(0xffff - sum, 10);
  return Buffer.concat([bytes, payload]);
}

/** The frame with its IPv4 header's checksum made right, where it is IPv4 without a tag. */
export function fixHeader(frame: Buffer): Buffer {
  if (frame.length < 34 || frame.readUInt16BE(12) !== 0x0800) return frame;
  const bytes = Buffer.from(frame);
  bytes.writeUInt16BE(0, 24);
  bytes.writeUInt16BE(0xffff - onesSum(bytes.subarray(14, 34)), 24);
  return bytes;
}

/** What a sum in ones' complement (RFC 1071) comes to, folded to 16 bits. */
function onesSum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt8(at) * 256 + (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
  return sum;
}

/**
 * A virtio-net header that has the host sum up the frame from `start` on and write the result at `start + offset`
 * (struct virtio_net_hdr with VIRTIO_NET_HDR_F_NEEDS_CSUM; virtio 1.2, 5.1.6.2).
 */
export function checksumHeader(start: number, offset: number): Buffer {
  const header = Buffer.alloc(10);
  header[0] = 1;
  header.writeUInt16LE(start, 6);
  header.writeUInt16LE(offset, 8);
  return header;
}

/** The frame with two bytes more, such that a sum from `start` on, which is even, comes to `value`. */
export function summingTo(frame: Buffer, start: number, value: number): Buffer {
  const even = frame.length % 2 === 0 ? frame : Buffer.concat([frame, Buffer.alloc(1)]);
  const rest = onesSum(even.subarray(start));
  const wanted = (0xffff - value + (0xffff - rest)) % 0xffff;
  return Buffer.concat([even, u16(wanted)]);
}

/** What a header for segments says; where absent, what is right for TCP over IPv4. */
interface Segments {
  readonly start?: number;
  readonly offset?: number;
  readonly flags?: number;
  /** VIRTIO_NET_HDR_GSO_*: 1 for TCP over IPv4, 3 for UDP in fragments, 4 for TCP over IPv6, 5 for UDP. */
  readonly kind?: number;
}

/** A header for a frame that the host cuts into segments of `size` bytes each, checksums and all. */
export function segmentHeader(headerBytes: number, size: number, segments: Segments = {}): Buffer {
  const { start = 34, offset = 16, flags = 1, kind = 1 } = segments;
  const header = checksumHeader(start, offset);
  header[0] = flags;
  header[1] = kind;
  header.writeUInt16LE(headerBytes, 2);
  header.writeUInt16LE(size, 4);
  return header;
}

/** RFC 768; a checksum of 0 says that there is none. */
export function udp(sourcePort: number, destinationPort: number, payload: Buffer): Buffer {
  return Buffer.concat([u16(sourcePort, destinationPort, 8 + payload.length, 0), payload]);
}

interface Bootp {
  readonly operation?: number;
  readonly hardware: string;
  readonly relay?: string;
}

/** RFC 2131, figure 1, with a DHCPDISCOVER's options. */
export function bootp({ operation = 1, hardware, relay = "0.0.0.0" }: Bootp, tag: Buffer): Buffer {
  const bytes = Buffer.alloc(236);
  bytes.set([operation, 1, 6, 0]);
  addressBytes(relay).copy(bytes, 24);
  macBytes(hardware).copy(bytes, 28);
  return Buffer.concat([bytes, Buffer.from([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]), tag]);
}

interface Dhcp {
  readonly operation: 1 | 2;
  readonly transaction: number;
  readonly hardware: string;
  /** RFC 2132, 9.6. */
  readonly type: number;
  readonly given?: string;
  readonly leaseSeconds?: number;
}

/** RFC 2131, figure 1, with a server identifier of 10.77.0.1 (RFC 2132, 9.7). */
export function dhcp({ operation, transaction, hardware, type, given = "0.0.0.0", leaseSeconds }: Dhcp): Buffer {
  const bytes = bootp({ operation, hardware }, Buffer.alloc(0)).subarray(0, 240);
  bytes.writeUInt32BE(transaction, 4);
  addressBytes(given).copy(bytes, 16);
  const seconds = Buffer.alloc(4);
  seconds.writeUInt32BE(leaseSeconds ?? 0);
  const lease = leaseSeconds === undefined ? [] : [51, 4, ...seconds];
  return Buffer.concat([bytes, Buffer.from([53, 1, type, 54, 4, 10, 77, 0, 1, ...lease, 255])]);
}
