/**
 * Reads netlink attributes (include/uapi/linux/netlink.h, struct nlattr) in place: a cursor, because a dump of a thousand
 * links holds some fifty thousand of them. Every read is checked against the attribute's own length; what does
 * not fit is EBADMSG. Unknown attributes cost nothing and are skipped by not asking for them.
 */
import { badMessage } from "../errors.ts";

/** NLA_F_NESTED: marks a container. */
export const NLA_F_NESTED = 0x8000;
/** NLA_TYPE_MASK: the type without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
const NLA_TYPE_MASK = 0x3fff;
const HEADER_BYTES = 4;

export class AttributeCursor {
  /** The current attribute's type, without flags. */
  type = 0;
  readonly #bytes: Buffer;
  readonly #end: number;
  #next: number;
  #valueStart = 0;
  #valueEnd = 0;

  /** Walks the attributes in `bytes[start, end)`. */
  constructor(bytes: Buffer, start: number, end: number) {
    if (start > end || end > bytes.length)
      throw badMessage(`attributes at ${start} to ${end} of ${bytes.length} bytes`);
    this.#bytes = bytes;
    this.#next = start;
    this.#end = end;
  }

  /** Steps to the next attribute; false after the last one. Fewer than four bytes at the end are padding. */
  next(): boolean {
    const start = this.#next;
    if (this.#end - start < HEADER_BYTES) return false;
    const size = this.#bytes.readUInt16LE(start);
    if (size < HEADER_BYTES || size > this.#end - start) {
      throw badMessage(`an attribute of ${size} bytes where ${this.#end - start} are left`);
    }
    this.type = this.#bytes.readUInt16LE(start + 2) & NLA_TYPE_MASK;
    this.#valueStart = start + HEADER_BYTES;
    this.#valueEnd = start + size;
    this.#next = start + ((size + 3) & ~3);
    return true;
  }

  /** Length of the current value in bytes. */
  get size(): number {
    return this.#valueEnd - this.#valueStart;
  }

  /** Where the current value begins and ends in the bytes that are walked. */
  range(): readonly [start: number, end: number] {
    return [this.#valueStart, this.#valueEnd];
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#require(1));
  }

  u16(): number {
    return this.#bytes.readUInt16LE(this.#require(2));
  }

  u32be(): number {
    return this.#bytes.readUInt32BE(this.#require(4));
  }

  u16be(): number {
    return this.#bytes.readUInt16BE(this.#require(2));
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.#require(4));
  }

  i32(): number {
    return this.#bytes.readInt32LE(this.#require(4));
  }

  /** The 64-bit counter at `index` of an array of them. Counters above 2^53 lose their lowest bits. */
  u64(index = 0): number {
    const at = this.#require((index + 1) * 8) + index * 8;
    return this.#bytes.readUInt32LE(at + 4) * 0x1_0000_0000 + this.#bytes.readUInt32LE(at);
  }

  /** The 32-bit integer at `index` of an array of them. */
  u32At(index: number): number {
    return this.#bytes.readUInt32LE(this.#require((index + 1) * 4) + index * 4);
  }

  /** Text up to its first zero byte, which may be missing. */
  string(): string {
    const zero = this.#bytes.indexOf(0, this.#valueStart);
    const end = zero === -1 || zero > this.#valueEnd ? this.#valueEnd : zero;
    return this.#bytes.toString("utf8", this.#valueStart, end);
  }

  /** The value's bytes, shared with the message. */
  bytes(): Buffer {
    return this.#bytes.subarray(this.#valueStart, this.#valueEnd);
  }

  /** A cursor over the attributes inside this one, after `skip` bytes of fixed body. */
  nested(skip = 0): AttributeCursor {
    return new AttributeCursor(this.#bytes, this.#require(skip) + skip, this.#valueEnd);
  }

  #require(size: number): number {
    if (this.size < size) throw badMessage(`attribute ${this.type} has ${this.size} bytes where ${size} are needed`);
    return this.#valueStart;
  }
}
