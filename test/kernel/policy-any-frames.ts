/** Frames of a guest's own that ask the host for anything, right and wrong, for the tests of the guard. */
import fc from "fast-check";
import { BRIDGED, PEER } from "./policy-forgeries.ts";
import { arp, ethernet, ipv4, udp } from "./policy-frames.ts";

export interface AnyFrame {
  readonly frame: Buffer;
  readonly header: Buffer;
}

/** What would come out in another order or size for other reasons than the guard is left out: segments longer than a link takes. */
const LONGEST_SEGMENT = 1400;

const payload = fc.oneof(fc.nat(100), fc.nat(3000), fc.constant(1000)).map((length) => Buffer.alloc(length, 0x5a));
/** RFC 9293, 3.1, with flags that a card treats in a way of its own among them: FIN, PSH, CWR. */
const tcp = fc
  .record({ flags: fc.constantFrom(0x10, 0x18, 0x11, 0x90), headerBytes: fc.constantFrom(20, 20, 20, 32, 60), payload })
  .map(({ flags, headerBytes, payload: rest }) => {
    const header = Buffer.alloc(headerBytes);
    header.writeUInt8(headerBytes * 4, 12);
    header.writeUInt8(flags, 13);
    return Buffer.concat([header, rest]);
  });
const transport = fc.oneof(
  tcp.map((bytes) => ({ protocol: 6, bytes })),
  payload.map((bytes) => ({ protocol: 17, bytes: udp(1000, 2000, bytes) })),
  payload.map((bytes) => ({ protocol: 1, bytes: Buffer.concat([Buffer.alloc(8), bytes]) })),
  tcp.map((bytes) => ({ protocol: 4, bytes: ipv4({ source: PEER.address, protocol: 6 }, bytes) })),
);
const packet = fc
  .record({
    transport,
    source: fc.constantFrom(BRIDGED.address, BRIDGED.address, BRIDGED.address, PEER.address),
    fragment: fc.constantFrom(0, 0, 0, 0x4000, 0x2000, 0x0002),
    options: fc.constantFrom(0, 0, 0, 4, 40),
  })
  .map(({ transport: { protocol, bytes }, source, fragment, options }) => {
    const whole = ipv4({ source, protocol, fragment }, Buffer.concat([Buffer.alloc(options, 1), bytes]));
    whole.writeUInt8(0x45 + options / 4, 0);
    return ethernet(BRIDGED.mac, 0x0800, whole);
  });
const other = payload.map((bytes) =>
  ethernet(
    BRIDGED.mac,
    0x0806,
    arp({ senderMac: BRIDGED.mac, senderIp: BRIDGED.address, targetIp: PEER.address }, bytes),
  ),
);
const place = (...usual: readonly number[]) => fc.oneof(fc.constantFrom(...usual), fc.nat(100));

/** struct virtio_net_hdr (virtio 1.2, 5.1.6): each field is often what goes with some frame, and often not. */
const header = fc
  .record({
    flags: fc.constantFrom(0, 1, 1, 1, 1, 2),
    kind: fc.constantFrom(0, 0, 1, 1, 1, 3, 4, 5, 0x81),
    headerBytes: place(0, 42, 54, 58, 66, 94),
    size: fc.constantFrom(100, 536, LONGEST_SEGMENT),
    start: place(34, 34, 34, 38, 74, 20, 14),
    offset: place(16, 16, 16, 6, 6, 8, 2, 0),
  })
  .map(({ flags, kind, headerBytes, size, start, offset }) => {
    const bytes = Buffer.from([flags, kind, 0, 0, 0, 0, 0, 0, 0, 0]);
    for (const [index, value] of [headerBytes, size, start, offset].entries())
      bytes.writeUInt16LE(value, 2 + index * 2);
    return bytes;
  });

/** So many of them, which are others each time, and what makes them the same again. */
export function anyFrames(count: number): { readonly cases: readonly AnyFrame[]; readonly seed: number } {
  const seed = Number(process.env["VOLANT_TEST_SEED"] ?? Date.now() % 2 ** 31);
  const frame = fc.oneof({ arbitrary: packet, weight: 9 }, { arbitrary: other, weight: 1 });
  return { cases: fc.sample(fc.record({ frame, header }), { numRuns: count, seed }), seed };
}
