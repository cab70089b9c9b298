/**
 * Builds one netlink message: header, fixed body, attributes. Integers are little-endian, as on every host that this
 * package supports; the few big-endian fields of the protocol have their own methods.
 */
export class MessageWriter {
  #bytes: Buffer;
  #length = 0;

  constructor(initialCapacity = 256) {
    this.#bytes = Buffer.alloc(initialCapacity);
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length;
  }

  u8(value: number): this {
    const at = this.#reserve(1);
    this.#bytes.writeUInt8(value, at);
    return this;
  }

  u16(value: number): this {
    const at = this.#reserve(2);
    this.#bytes.writeUInt16LE(value, at);
    return this;
  }

  u16be(value: number): this {
    const at = this.#reserve(2);
    this.#bytes.writeUInt16BE(value, at);
    return this;
  }

  u32(value: number): this {
    const at = this.#reserve(4);
    this.#bytes.writeUInt32LE(value, at);
    return this;
  }

  i32(value: number): this {
    const at = this.#reserve(4);
    this.#bytes.writeInt32LE(value, at);
    return this;
  }

  raw(bytes: Uint8Array): this {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
    return this;
  }

  /** Zero bytes up to the next multiple of 4 (NLMSG_ALIGN, NLA_ALIGN). */
  align(): this {
    this.#reserve((4 - (this.#length % 4)) % 4);
    return this;
  }

  /** An attribute whose value `write` appends: also a nested one, with NLA_F_NESTED where the caller sets it in `type`. */
  attribute(type: number, write: (writer: this) => void): this {
    this.align();
    const start = this.#reserve(4);
    write(this);
    const size = this.#length - start;
    if (size > 0xffff) throw new RangeError(`attribute ${type} of ${size} bytes does not fit into 65535`);
    this.#bytes.writeUInt16LE(size, start);
    this.#bytes.writeUInt16LE(type, start + 2);
    return this.align();
  }

  bytesAttribute(type: number, bytes: Uint8Array): this {
    return this.attribute(type, () => this.raw(bytes));
  }

  u8Attribute(type: number, value: number): this {
    return this.attribute(type, () => this.u8(value));
  }

  u16Attribute(type: number, value: number): this {
    return this.attribute(type, () => this.u16(value));
  }

  u32Attribute(type: number, value: number): this {
    return this.attribute(type, () => this.u32(value));
  }

  /** A text with the closing zero byte that the kernel's NLA_NUL_STRING policies ask for. */
  stringAttribute(type: number, text: string): this {
    return this.bytesAttribute(type, Buffer.from(`${text}\0`, "utf8"));
  }

  /** Overwrites four bytes that were written before. */
  patchU32(offset: number, value: number): this {
    if (offset + 4 > this.#length) throw new RangeError(`no four bytes at ${offset}`);
    this.#bytes.writeUInt32LE(value, offset);
    return this;
  }

  /** The bytes written so far, without a copy: the writer is done when this is called. */
  finish(): Buffer {
    return this.#bytes.subarray(0, this.#length);
  }

  #reserve(size: number): number {
    const at = this.#length;
    const needed = at + size;
    if (needed > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(needed, this.#bytes.length * 2));
      this.#bytes.copy(larger, 0, 0, at);
      this.#bytes = larger;
    }
    this.#length = needed;
    return at;
  }
}
