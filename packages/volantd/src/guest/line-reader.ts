/** Cuts bytes from a guest into lines, in bounded memory. Pure. */

const NEWLINE = 0x0a;

export class LineReader {
  readonly #maxBytes: number;
  #held: Buffer[] = [];
  #heldBytes = 0;
  #skipping = false;

  /** @param maxBytes a longer line is dropped whole */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Whether these bytes are this line of ASCII, whole and alone but for an empty one before it, so that they need not be fed. Makes no objects: a thousand guests' beats would be half a
   * megabyte each second.
   */
  isLine(bytes: Buffer, line: string): boolean {
    const start = bytes[0] === NEWLINE ? 1 : 0;
    const length = bytes.length - start - 1;
    if (length !== line.length || bytes[bytes.length - 1] !== NEWLINE || this.#heldBytes > 0 || this.#skipping)
      return false;
    for (let at = 0; at < length; at += 1) if (bytes[start + at] !== line.charCodeAt(at)) return false;
    return true;
  }

  /** The non-empty lines that `bytes` complete, without their ends. Invalid UTF-8 becomes U+FFFD. */
  feed(bytes: Buffer): string[] {
    const lines: string[] = [];
    let from = 0;
    for (let end = bytes.indexOf(NEWLINE); end !== -1; end = bytes.indexOf(NEWLINE, from)) {
      // Most lines come whole.
      if (this.#heldBytes === 0 && !this.#skipping && end - from <= this.#maxBytes) {
        if (end > from) lines.push(bytes.toString("utf8", from, end));
        from = end + 1;
        continue;
      }
      this.#hold(bytes.subarray(from, end));
      if (!this.#skipping && this.#heldBytes > 0) lines.push(Buffer.concat(this.#held).toString("utf8"));
      this.#held = [];
      this.#heldBytes = 0;
      this.#skipping = false;
      from = end + 1;
    }
    this.#hold(bytes.subarray(from));
    return lines;
  }

  #hold(part: Buffer): void {
    if (this.#skipping || part.length === 0) return;
    this.#heldBytes += part.length;
    if (this.#heldBytes <= this.#maxBytes) {
      // A copy: the chunk that a slice would keep alive can be a thousand times larger.
      this.#held.push(Buffer.from(part));
      // One-byte chunks must not cost an object each for ever.
      if (this.#held.length > 64) this.#held = [Buffer.concat(this.#held)];
      return;
    }
    this.#skipping = true;
    this.#held = [];
    this.#heldBytes = 0;
  }
}
