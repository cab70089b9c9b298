/**
 * LZ4's legacy frame, as `lz4 -l` writes it and Linux's x86 build packs its kernel with (scripts/Makefile.lib, `cmd_lz4`).
 *
 * The formats: lz4_Frame_format.md, section "Legacy frame", and lz4_Block_format.md, both of the LZ4 project. A frame is the magic number and then blocks,
 * each a 32-bit little-endian length and that many compressed bytes; a block unpacks to at most 8 MiB.
 */

export const LZ4_LEGACY_MAGIC = 0x184c2102;
/** "Legacy frame": each block holds 8 MiB of content, but for the last. */
const MAX_BLOCK_BYTES = 8 * 1024 * 1024;
/** Block format: a match is at least 4 bytes, so the token's nibble counts from there. */
const MIN_MATCH = 4;

/** Bytes that are no LZ4 legacy frame, or would unpack to more than allowed. */
export class Lz4Error extends Error {
  constructor(message: string) {
    super(message);
    this.name = "Lz4Error";
  }
}

/** Adds up a length that is continued in bytes of 255. Returns the length and the position after it. */
function readLength(input: Uint8Array, start: number, initial: number): [length: number, next: number] {
  let length = initial;
  let at = start;
  for (;;) {
    const byte = input[at];
    if (byte === undefined) throw new Lz4Error("a length runs over the end of its block");
    at += 1;
    length += byte;
    if (byte !== 255) return [length, at];
  }
}

/** Unpacks one block into `output` from `start` on and returns the position after the last byte written. */
function decodeBlock(input: Uint8Array, output: Uint8Array, start: number): number {
  const end = Math.min(output.length, start + MAX_BLOCK_BYTES);
  let read = 0;
  let write = start;
  while (read < input.length) {
    const token = input[read] as number;
    read += 1;
    let literals = token >> 4;
    if (literals === 15) [literals, read] = readLength(input, read, literals);
    if (literals > input.length - read) throw new Lz4Error("literals run over the end of their block");
    if (literals > end - write) throw new Lz4Error("a block unpacks to more than is allowed");
    output.set(input.subarray(read, read + literals), write);
    read += literals;
    write += literals;
    // The last sequence of a block has literals only.
    if (read === input.length) return write;

    const low = input[read];
    const high = input[read + 1];
    if (low === undefined || high === undefined) throw new Lz4Error("a match is cut off at the end of its block");
    read += 2;
    const offset = low | (high << 8);
    if (offset === 0 || offset > write - start) throw new Lz4Error("a match points before the start of its block");
    let match = token & 15;
    if (match === 15) [match, read] = readLength(input, read, match);
    match += MIN_MATCH;
    if (match > end - write) throw new Lz4Error("a block unpacks to more than is allowed");
    const from = write - offset;
    if (offset >= match) {
      output.copyWithin(write, from, from + match);
    } else {
      // The match overlaps what it writes: byte by byte is what repeats the pattern.
      for (let index = 0; index < match; index += 1) output[write + index] = output[from + index] as number;
    }
    write += match;
  }
  throw new Lz4Error("a block ends in the middle of a sequence");
}

/**
 * The content of an LZ4 legacy frame.
 *
 * @param maxBytes the most that the content may be; memory of that size is taken once
 * @throws Lz4Error when the bytes are no such frame, or hold more than `maxBytes`
 */
export function decodeLz4Legacy(frame: Uint8Array, maxBytes: number): Uint8Array {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 4 || view.getUint32(0, true) !== LZ4_LEGACY_MAGIC) throw new Lz4Error("no LZ4 legacy frame");
  const output = new Uint8Array(maxBytes);
  let at = 4;
  let written = 0;
  while (at < frame.length) {
    if (frame.length - at < 4) throw new Lz4Error("the frame ends in the middle of a block's length");
    const size = view.getUint32(at, true);
    at += 4;
    // Frames may follow one another; the next one's magic number is larger than any block can be.
    if (size === LZ4_LEGACY_MAGIC) continue;
    if (size === 0 || size > frame.length - at) throw new Lz4Error("a block runs over the end of the frame");
    written = decodeBlock(frame.subarray(at, at + size), output, written);
    at += size;
  }
  return output.subarray(0, written);
}
