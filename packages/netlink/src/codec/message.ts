/**
 * The netlink envelope (include/uapi/linux/netlink.h, RFC 3549): struct nlmsghdr, datagrams of several messages, and
 * acknowledgements with their extended part (NETLINK_EXT_ACK).
 */
import { badMessage } from "../errors.ts";
import { AttributeCursor } from "./attributes.ts";
import { MessageWriter } from "./writer.ts";

const HEADER_BYTES = 16;

export const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSG_OVERRUN = 4;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_MULTI = 0x2;
export const NLM_F_ACK = 0x4;
/** The table changed while it was being dumped: the parts do not fit together. */
export const NLM_F_DUMP_INTR = 0x10;
/** NLM_F_ROOT | NLM_F_MATCH. */
export const NLM_F_DUMP = 0x300;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
/** In an acknowledgement: the request's payload was left out. */
const NLM_F_CAPPED = 0x100;
/** In an acknowledgement: attributes follow. */
const NLM_F_ACK_TLVS = 0x200;

const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;

/** One message out of a datagram. `body` shares the datagram's memory. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly portId: number;
  readonly body: Buffer;
}

export interface MessageHeader {
  readonly type: number;
  readonly flags: number;
  readonly sequence?: number;
  readonly portId?: number;
}

/** Encodes a message: `writeBody` appends fixed body and attributes. */
export function encodeMessage(header: MessageHeader, writeBody: (writer: MessageWriter) => void): Buffer {
  const writer = new MessageWriter();
  writer.u32(0).u16(header.type).u16(header.flags);
  writer.u32(header.sequence ?? 0).u32(header.portId ?? 0);
  writeBody(writer);
  writer.patchU32(0, writer.length);
  return writer.align().finish();
}

/** Sets the sequence number of an encoded message. */
export function stampSequence(message: Buffer, sequence: number): void {
  message.writeUInt32LE(sequence, 8);
}

/** Splits a datagram into its messages. EBADMSG for a length that does not fit. */
export function decodeMessages(datagram: Buffer): NetlinkMessage[] {
  const messages: NetlinkMessage[] = [];
  let at = 0;
  while (datagram.length - at >= HEADER_BYTES) {
    const length = datagram.readUInt32LE(at);
    if (length < HEADER_BYTES || length > datagram.length - at) {
      throw badMessage(`a message of ${length} bytes where ${datagram.length - at} are left`);
    }
    messages.push({
      type: datagram.readUInt16LE(at + 4),
      flags: datagram.readUInt16LE(at + 6),
      sequence: datagram.readUInt32LE(at + 8),
      portId: datagram.readUInt32LE(at + 12),
      body: datagram.subarray(at + HEADER_BYTES, at + length),
    });
    at += (length + 3) & ~3;
  }
  if (at < datagram.length) throw badMessage(`${datagram.length - at} stray bytes after the last message`);
  return messages;
}

export interface Acknowledgement {
  /** 0 for success, else a positive errno. */
  readonly errno: number;
  /** The kernel's own words, where it has some. */
  readonly message?: string;
  /** Offset in the request of the attribute at fault. */
  readonly offset?: number;
}

/** Decodes the body of NLMSG_ERROR (struct nlmsgerr); `flags` are those of its header. */
export function decodeAcknowledgement(flags: number, body: Buffer): Acknowledgement {
  if (body.length < 4 + HEADER_BYTES) throw badMessage(`an acknowledgement of ${body.length} bytes`);
  const errno = Math.abs(body.readInt32LE(0));
  if ((flags & NLM_F_ACK_TLVS) === 0) return { errno };
  const requestBytes = (flags & NLM_F_CAPPED) === 0 ? body.readUInt32LE(4) : HEADER_BYTES;
  const start = 4 + ((requestBytes + 3) & ~3);
  if (requestBytes < HEADER_BYTES || start > body.length) {
    throw badMessage(`an acknowledgement of ${body.length} bytes for a request of ${requestBytes}`);
  }
  return { errno, ...decodeExtendedPart(body, start) };
}

/** Decodes the body of NLMSG_DONE: the dump's own errno and, where there is one, its message. */
export function decodeDone(flags: number, body: Buffer): Acknowledgement {
  if (body.length < 4) return { errno: 0 };
  const errno = Math.abs(Math.min(0, body.readInt32LE(0)));
  if ((flags & NLM_F_ACK_TLVS) === 0) return { errno };
  return { errno, ...decodeExtendedPart(body, 4) };
}

function decodeExtendedPart(body: Buffer, start: number): { message?: string; offset?: number } {
  const extended: { message?: string; offset?: number } = {};
  const attributes = new AttributeCursor(body, start, body.length);
  while (attributes.next()) {
    if (attributes.type === NLMSGERR_ATTR_MSG) extended.message = attributes.string();
    else if (attributes.type === NLMSGERR_ATTR_OFFS) extended.offset = attributes.u32();
  }
  return extended;
}
