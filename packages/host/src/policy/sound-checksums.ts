/**
 * Which of a guest's frames may pass the guard untouched: a program that looks at each as the kernel holds it (struct sk_buff), because what a
 * virtio-net header asked for is not in the frame's bytes. It passes
 *
 * - frames that nothing is to be done to: no checksum to be filled in, no segments to be cut;
 * - TCP and UDP over IPv4, not in fragments, whose checksum is to be filled in just where theirs is: a field that no rule looks at;
 * - the same for TCP that is to be cut into segments, each of which gets the addresses and ports that the rules see. The segments of UDP
 *   would each get a part of the payload, which the rules for DHCP do look at.
 *
 * All others go on to the next filter, and so by the guard's link. Whatever the program can't read goes there, too.
 *
 * No I/O.
 */
import {
  assemble,
  type Btf,
  call,
  compute,
  type EbpfLine,
  type FieldPlace,
  jump,
  jumpIf,
  load,
  type Register,
  result,
} from "@volant/netlink";

/** Where the fields are that the program reads, in bytes. */
export interface PacketLayout {
  /** struct sk_buff: a field of two bits. */
  readonly ipSummed: { readonly byte: number; readonly shift: number };
  readonly checksumStart: number;
  readonly checksumOffset: number;
  readonly head: number;
  readonly data: number;
  readonly end: number;
  /** struct skb_shared_info, which is at `head` + `end`. */
  readonly segmentType: number;
}

/** enum bpf_func_id (include/uapi/linux/bpf.h). */
const SKB_LOAD_BYTES = 26;
const PROBE_READ_KERNEL = 113;
/** struct __sk_buff (the same file). */
const VLAN_PRESENT = 20;
const SEGMENT_SIZE = 176;
/** include/linux/skbuff.h: CHECKSUM_PARTIAL; SKB_GSO_TCPV4, and SKB_GSO_DODGY and SKB_GSO_TCP_ECN, which only say more about it. */
const PARTIAL = 3;
const SEGMENTS = { SKB_GSO_TCPV4: 1, SKB_GSO_DODGY: 2, SKB_GSO_TCP_ECN: 4 } as const;
const TELLS_THE_KIND = ~(SEGMENTS.SKB_GSO_DODGY | SEGMENTS.SKB_GSO_TCP_ECN);
/** TC_ACT_OK, and TC_ACT_UNSPEC. */
const PASS = 0;
const NEXT = -1;
/** Of 512 bytes of stack: what is copied of struct sk_buff, and below it of the frame. */
const MOST_COPIED = 384;
const ETHERNET_BYTES = 14;
/** What is looked at of the frame: from the EtherType to IPv4's protocol (RFC 791, 3.1). */
const FRAME_AT = 12;
const FRAME_BYTES = 12;
/** IPv4's EtherType, and all of flags and fragment offset but "don't fragment": as a little-endian machine reads them. */
const IPV4 = 0x0008;
const FRAGMENT = 0xff3f;
const TCP = 6;
const UDP = 17;
/** Of a header, where its checksum is (RFC 9293, 3.1; RFC 768). */
const TCP_CHECKSUM = 16;
const UDP_CHECKSUM = 6;

/** Where this kernel has the fields, or undefined where it has not all of them just as the program takes them to be. */
export function packetLayout(btf: Btf): PacketLayout | undefined {
  if (Object.entries(SEGMENTS).some(([name, value]) => btf.constant(name) !== value)) return undefined;
  const at = (structure: string, name: string, bits: number): FieldPlace | undefined => {
    const place = btf.field(structure, name);
    return place?.bits === bits ? place : undefined;
  };
  const bytes = [
    at("sk_buff", "csum_start", 16),
    at("sk_buff", "csum_offset", 16),
    at("sk_buff", "head", 64),
    at("sk_buff", "data", 64),
    at("sk_buff", "end", 32),
    at("skb_shared_info", "gso_type", 32),
  ].flatMap((place) => (place === undefined || place.bitOffset % 8 !== 0 ? [] : [place.bitOffset / 8]));
  const summed = at("sk_buff", "ip_summed", 2);
  const [checksumStart, checksumOffset, head, data, end, segmentType] = bytes;
  if (
    summed === undefined ||
    summed.bitOffset % 8 > 6 ||
    checksumStart === undefined ||
    checksumOffset === undefined ||
    head === undefined ||
    data === undefined ||
    end === undefined ||
    segmentType === undefined
  ) {
    return undefined;
  }
  const ipSummed = { byte: Math.floor(summed.bitOffset / 8), shift: summed.bitOffset % 8 };
  const layout = { ipSummed, checksumStart, checksumOffset, head, data, end, segmentType };
  return copied(layout).size <= MOST_COPIED ? layout : undefined;
}

/** The part of struct sk_buff that is copied to the stack at once. */
function copied({ ipSummed, checksumStart, checksumOffset, head, data, end }: PacketLayout) {
  const first = Math.min(ipSummed.byte, checksumStart, checksumOffset, head, data, end);
  const last = Math.max(ipSummed.byte + 1, checksumStart + 2, checksumOffset + 2, head + 8, data + 8, end + 4);
  const start = first - (first % 8);
  return { start, size: Math.ceil((last - start) / 8) * 8 };
}

/** The program, for traffic control with its result as the verdict. */
export function soundChecksums(layout: PacketLayout): Buffer {
  const { start, size } = copied(layout);
  const stack = 10;
  const packet = 6;
  const segmentSize = 7;
  const inCopy = (offset: number) => offset - start - size;
  const frame = -size - 16;
  /** Copies `bytes` bytes of the kernel's memory, whose address is in register 3, to the stack. */
  const copy = (to: number, bytes: number): EbpfLine[] => [
    compute(1, "set", { register: stack }),
    compute(1, "add", to),
    compute(2, "set", bytes),
    call(PROBE_READ_KERNEL),
    jumpIf(0, "≠", 0, "next"),
  ];
  const field = (to: Register, kind: "u16" | "u32" | "u64", offset: number) => load(to, kind, stack, inCopy(offset));
  const ofFrame = (to: Register, kind: "u8" | "u16", at: number) => load(to, kind, stack, frame + at - FRAME_AT);
  return assemble([
    compute(packet, "set", { register: 1 }),
    load(segmentSize, "u32", packet, SEGMENT_SIZE),
    // The context of such a program is the struct sk_buff itself.
    compute(3, "set", { register: packet }),
    compute(3, "add", start),
    ...copy(-size, size),
    load(1, "u8", stack, inCopy(layout.ipSummed.byte)),
    compute(1, "shiftRight", layout.ipSummed.shift),
    compute(1, "and", 3),
    jumpIf(1, "=", PARTIAL, "partial"),
    jumpIf(segmentSize, "≠", 0, "next"),
    jump("pass"),

    { label: "partial" },
    load(1, "u32", packet, VLAN_PRESENT),
    jumpIf(1, "≠", 0, "next"),
    compute(1, "set", { register: packet }),
    compute(2, "set", FRAME_AT),
    compute(3, "set", { register: stack }),
    compute(3, "add", frame),
    compute(4, "set", FRAME_BYTES),
    call(SKB_LOAD_BYTES),
    jumpIf(0, "≠", 0, "next"),
    ofFrame(1, "u16", 12),
    jumpIf(1, "≠", IPV4, "next"),
    ofFrame(2, "u8", 14),
    compute(1, "set", { register: 2 }),
    compute(1, "shiftRight", 4),
    jumpIf(1, "≠", 4, "next"),
    compute(2, "and", 15),
    jumpIf(2, "<", 5, "next"),
    ofFrame(1, "u16", 20),
    compute(1, "and", FRAGMENT),
    jumpIf(1, "≠", 0, "next"),

    // Register 2 becomes where the checksum must start: behind the headers, counted from the buffer's head.
    compute(2, "shiftLeft", 2),
    compute(2, "add", ETHERNET_BYTES),
    field(3, "u64", layout.head),
    field(1, "u64", layout.data),
    compute(1, "subtract", { register: 3 }),
    compute(2, "add", { register: 1 }),
    field(1, "u16", layout.checksumStart),
    jumpIf(1, "≠", { register: 2 }, "next"),

    field(1, "u16", layout.checksumOffset),
    ofFrame(2, "u8", 23),
    jumpIf(2, "=", TCP, "tcp"),
    jumpIf(2, "≠", UDP, "next"),
    jumpIf(1, "≠", UDP_CHECKSUM, "next"),
    jumpIf(segmentSize, "≠", 0, "next"),
    jump("pass"),

    { label: "tcp" },
    jumpIf(1, "≠", TCP_CHECKSUM, "next"),
    jumpIf(segmentSize, "=", 0, "pass"),
    field(1, "u32", layout.end),
    compute(3, "add", { register: 1 }),
    compute(3, "add", layout.segmentType),
    ...copy(frame, 4),
    load(1, "u32", stack, frame),
    compute(1, "and", TELLS_THE_KIND),
    jumpIf(1, "≠", SEGMENTS.SKB_GSO_TCPV4, "next"),

    { label: "pass" },
    ...result(PASS),
    { label: "next" },
    ...result(NEXT),
  ]);
}
