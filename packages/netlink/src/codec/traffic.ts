/**
 * Traffic control: struct tcmsg and the TCA_* attributes (include/uapi/linux/rtnetlink.h, pkt_sched.h, pkt_cls.h), as far as a
 * link's ingress and the filters of a shared block go (tc(8), "BLOCKS").
 */
import { badMessage } from "../errors.ts";
import { AttributeCursor, NLA_F_NESTED } from "./attributes.ts";
import type { MessageWriter } from "./writer.ts";

export const RTM_NEWQDISC = 36;
export const RTM_DELQDISC = 37;
export const RTM_GETQDISC = 38;
export const RTM_NEWTFILTER = 44;
export const RTM_DELTFILTER = 45;
export const RTM_GETTFILTER = 46;

/** struct tcmsg: family, padding, link, handle, parent, info. */
const BODY_BYTES = 20;
/** TC_H_INGRESS: where the queueing discipline of what comes in hangs; its own handle is ffff:. */
const INGRESS_PARENT = 0xffff_fff1;
const INGRESS_HANDLE = 0xffff_0000;
/** TCM_IFINDEX_MAGIC_BLOCK: the message is about a shared block, whose index stands in `parent`. */
const BLOCK_MAGIC = -1;
/** ETH_P_ALL in network byte order. */
const ANY_PROTOCOL = 0x0300;
/** struct sock_filter (include/uapi/linux/filter.h). */
const INSTRUCTION_BYTES = 8;

const TCA = { kind: 1, options: 2, ingressBlock: 13 } as const;
const TCA_BPF = { action: 1, length: 4, program: 5, fd: 6, name: 7, flags: 8, tag: 10 } as const;
/** TCA_BPF_FLAG_ACT_DIRECT: the program's result is the verdict. */
const DIRECT = 1;
const TCA_ACT = { kind: 1, options: 2 } as const;
/** TCA_MIRRED_PARMS: struct tc_mirred. */
const MIRRED_PARAMETERS = 2;
const MIRRED_LINK_OFFSET = 24;
/** TC_ACT_STOLEN and TCA_EGRESS_REDIR. */
const STOLEN = 4;
const EGRESS_REDIRECT = 1;

/** One instruction of classic BPF (Documentation/networking/filter.rst): code, jumps if true and if false, operand. */
export type BpfInstruction = readonly [code: number, jumpTrue: number, jumpFalse: number, operand: number];

/**
 * A filter of a shared block. Without `redirect` the program's result is the verdict itself (TC_ACT_*; -1 leaves the frame to the
 * next filter); with it, frames for which the program gives anything but 0 leave by the link of that index instead.
 */
export interface BlockFilter {
  /** 1 to 65,535; lower ones come first. One filter for each. */
  readonly priority: number;
  readonly program: readonly BpfInstruction[];
  readonly redirect?: number;
  /** The kernel's digest of a program of eBPF, whose result is the verdict itself; `program` is empty then. */
  readonly tag?: string;
}

/** A filter to be added: of classic BPF, or a program that is loaded already, whose result is the verdict. */
export type NewBlockFilter =
  | Omit<BlockFilter, "tag">
  | { readonly priority: number; readonly loaded: { readonly fd: number; readonly name: string } };

export function encodeProgram(program: readonly BpfInstruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * INSTRUCTION_BYTES);
  for (const [index, [code, jumpTrue, jumpFalse, operand]] of program.entries()) {
    const at = index * INSTRUCTION_BYTES;
    bytes.writeUInt16LE(code, at);
    bytes.writeUInt8(jumpTrue, at + 2);
    bytes.writeUInt8(jumpFalse, at + 3);
    bytes.writeUInt32LE(operand, at + 4);
  }
  return bytes;
}

function decodeProgram(bytes: Buffer): BpfInstruction[] {
  if (bytes.length % INSTRUCTION_BYTES !== 0) throw badMessage(`a BPF program of ${bytes.length} bytes`);
  return Array.from({ length: bytes.length / INSTRUCTION_BYTES }, (_none, index) => {
    const at = index * INSTRUCTION_BYTES;
    return [bytes.readUInt16LE(at), bytes.readUInt8(at + 2), bytes.readUInt8(at + 3), bytes.readUInt32LE(at + 4)];
  });
}

function writeMessage(writer: MessageWriter, link: number, handle: number, parent: number, info: number): void {
  writer.u32(0).i32(link).u32(handle).u32(parent).u32(info);
}

/** The body of RTM_NEWQDISC: what comes in by the link goes through the filters of the block. */
export function writeIngress(writer: MessageWriter, link: number, block: number): void {
  writeMessage(writer, link, INGRESS_HANDLE, INGRESS_PARENT, 0);
  writer.stringAttribute(TCA.kind, "ingress");
  writer.u32Attribute(TCA.ingressBlock, block);
}

/** The body of RTM_DELQDISC for the same. */
export function writeIngressKey(writer: MessageWriter, link: number): void {
  writeMessage(writer, link, 0, INGRESS_PARENT, 0);
}

/** The body of RTM_GETQDISC for a dump of every link's. */
export function writeQdiscRequest(writer: MessageWriter): void {
  writeMessage(writer, 0, 0, 0, 0);
}

/** The link and the block of an ingress queueing discipline; undefined for any other. */
export function decodeIngress(body: Buffer): { readonly link: number; readonly block: number | undefined } | undefined {
  if (body.length < BODY_BYTES) throw badMessage(`tcmsg of ${body.length} bytes`);
  if (body.readUInt32LE(12) !== INGRESS_PARENT) return undefined;
  let block: number | undefined;
  const attributes = new AttributeCursor(body, BODY_BYTES, body.length);
  while (attributes.next()) if (attributes.type === TCA.ingressBlock) block = attributes.u32();
  return { link: body.readInt32LE(4), block };
}

/** The body of RTM_GETTFILTER for a block's filters, or of RTM_DELTFILTER for all of them. */
export function writeBlockKey(writer: MessageWriter, block: number): void {
  writeMessage(writer, BLOCK_MAGIC, 0, block, 0);
}

/** The body of RTM_NEWTFILTER. */
export function writeBlockFilter(writer: MessageWriter, block: number, filter: NewBlockFilter): void {
  const { priority } = filter;
  writeMessage(writer, BLOCK_MAGIC, 1, block, priority * 0x1_0000 + ANY_PROTOCOL);
  writer.stringAttribute(TCA.kind, "bpf");
  writer.attribute(TCA.options | NLA_F_NESTED, () => {
    if ("loaded" in filter) {
      writer.u32Attribute(TCA_BPF.fd, filter.loaded.fd);
      writer.stringAttribute(TCA_BPF.name, filter.loaded.name);
      writer.u32Attribute(TCA_BPF.flags, DIRECT);
      return;
    }
    const { program, redirect } = filter;
    writer.u16Attribute(TCA_BPF.length, program.length);
    writer.bytesAttribute(TCA_BPF.program, encodeProgram(program));
    if (redirect === undefined) writer.u32Attribute(TCA_BPF.flags, DIRECT);
    else writer.attribute(TCA_BPF.action | NLA_F_NESTED, () => writeRedirect(writer, redirect));
  });
}

/** A list of one action. */
function writeRedirect(writer: MessageWriter, link: number): void {
  writer.attribute(1 | NLA_F_NESTED, () => {
    writer.stringAttribute(TCA_ACT.kind, "mirred");
    writer.attribute(TCA_ACT.options | NLA_F_NESTED, () =>
      writer.attribute(MIRRED_PARAMETERS, () => {
        // struct tc_mirred: index, capabilities, action, two counts of references; then what to do, and with which link.
        writer.u32(0).u32(0).i32(STOLEN).i32(0).i32(0).i32(EGRESS_REDIRECT).u32(link);
      }),
    );
  });
}

/** A filter; undefined for the message that announces a priority. One of another kind than this file writes has an empty program. */
export function decodeBlockFilter(body: Buffer): BlockFilter | undefined {
  if (body.length < BODY_BYTES) throw badMessage(`tcmsg of ${body.length} bytes`);
  const priority = body.readUInt32LE(16) >>> 16;
  let kind = "";
  let program: BpfInstruction[] | undefined;
  let redirect: number | undefined;
  let tag: string | undefined;
  let flags = 0;
  const attributes = new AttributeCursor(body, BODY_BYTES, body.length);
  while (attributes.next()) {
    if (attributes.type === TCA.kind) kind = attributes.string();
    if (attributes.type !== TCA.options || kind !== "bpf") continue;
    const options = attributes.nested();
    while (options.next()) {
      if (options.type === TCA_BPF.program) program = decodeProgram(options.bytes());
      if (options.type === TCA_BPF.tag) tag = options.bytes().toString("hex");
      if (options.type === TCA_BPF.flags) flags = options.u32();
      if (options.type === TCA_BPF.action) redirect = decodeRedirect(options.nested());
    }
  }
  if (kind !== "bpf") return { priority, program: [] };
  if (tag !== undefined)
    return { priority, program: [], ...(flags === DIRECT && redirect === undefined ? { tag } : {}) };
  if (program === undefined) return undefined;
  return { priority, program, ...(redirect === undefined ? {} : { redirect }) };
}

/** The link that the first action of a list redirects to. */
function decodeRedirect(list: AttributeCursor): number | undefined {
  if (!list.next()) return undefined;
  const action = list.nested();
  let kind = "";
  while (action.next()) {
    if (action.type === TCA_ACT.kind) kind = action.string();
    if (action.type !== TCA_ACT.options || kind !== "mirred") continue;
    const options = action.nested();
    while (options.next()) {
      if (options.type !== MIRRED_PARAMETERS) continue;
      const bytes = options.bytes();
      return bytes.length < MIRRED_LINK_OFFSET + 4 ? undefined : bytes.readUInt32LE(MIRRED_LINK_OFFSET);
    }
  }
  return undefined;
}
