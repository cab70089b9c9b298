/**
 * Reading a tar archive as it comes, in bounded memory. The archive is a guest's: what does not fit the format, and numbers that nobody can mean,
 * are refused; names are given as they are, for the reader to judge.
 */
import { VolantError } from "@volant/contract/errors";
import { BLOCK_BYTES, checksumOf, paddingOf, type TarEntry, type TarKind } from "./header.ts";

/** Extended headers larger than this are refused; a path has at most 4,096 bytes (limits.h, PATH_MAX). */
const MAX_EXTENSION_BYTES = 64 * 1024;

/** Keywords that are kept; whatever else a guest sends is not remembered. */
const FIELDS: ReadonlySet<string> = new Set(["path", "linkpath", "size"]);
const REMARKS: ReadonlySet<string> = new Set(["VOLANT.error", "VOLANT.left_out"]);

function wrong(what: string): VolantError {
  return new VolantError("guest_unreachable", `the guest sent no valid archive: ${what}`);
}

/** Bytes by count, from pieces of any size. */
class Pieces {
  readonly #source: AsyncIterator<Uint8Array>;
  #held: Uint8Array = new Uint8Array();

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** At least one and at most `max` bytes; undefined at the end. */
  async some(max: number): Promise<Uint8Array | undefined> {
    while (this.#held.length === 0) {
      const next = await this.#source.next();
      if (next.done === true) return undefined;
      this.#held = next.value;
    }
    const piece = this.#held.subarray(0, max);
    this.#held = this.#held.subarray(piece.length);
    return piece;
  }

  async exactly(count: number): Promise<Buffer> {
    const bytes = Buffer.alloc(count);
    for (let at = 0; at < count;) {
      const piece = await this.some(count - at);
      if (piece === undefined) throw wrong("it ends in the middle");
      bytes.set(piece, at);
      at += piece.length;
    }
    return bytes;
  }

  async close(): Promise<void> {
    await this.#source.return?.();
  }
}

export class TarReader {
  readonly #pieces: Pieces;
  readonly #remarks = new Map<string, string>();
  #left = 0;
  #padding = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#pieces = new Pieces(source);
  }

  /** What the agent has said of the archive so far, in global headers. */
  get remarks(): ReadonlyMap<string, string> {
    return this.#remarks;
  }

  /** The next entry, what was not read of the one before being passed over; undefined at the archive's end, with all of the source read. */
  async next(): Promise<TarEntry | undefined> {
    const fields = new Map<string, string>();
    for (;;) {
      for await (const _ of this.body());
      await this.#pieces.exactly(this.#padding);
      this.#padding = 0;
      const block = await this.#pieces.exactly(BLOCK_BYTES);
      if (block.every((byte) => byte === 0)) {
        while ((await this.#pieces.some(BLOCK_BYTES * 128)) !== undefined);
        return undefined;
      }
      if (readNumber(block.subarray(148, 156)) !== checksumOf(block)) throw wrong("the sum of a header is not right");
      const size = readNumber(block.subarray(124, 136));
      if (size === undefined) throw wrong("an entry has no size");
      const flag = String.fromCharCode(block[156] ?? 0);
      if (flag === "x") readRecords(await this.#extension(size), FIELDS, fields);
      else if (flag === "g") readRecords(await this.#extension(size), REMARKS, this.#remarks);
      else if (flag === "L") fields.set("path", readText(await this.#extension(size)));
      else if (flag === "K") fields.set("linkpath", readText(await this.#extension(size)));
      else return this.#entry(block, flag, size, fields);
    }
  }

  /** The bytes of the present entry. */
  async *body(): AsyncGenerator<Uint8Array> {
    while (this.#left > 0) {
      const piece = await this.#pieces.some(this.#left);
      if (piece === undefined) throw wrong("it ends in the middle");
      this.#left -= piece.length;
      yield piece;
    }
  }

  /** Lets go of the source. */
  async close(): Promise<void> {
    await this.#pieces.close();
  }

  #entry(block: Buffer, flag: string, headerSize: number, fields: ReadonlyMap<string, string>): TarEntry {
    const full = fields.get("path") ?? longName(block);
    const kind = kindOf(flag, full);
    const sizeText = fields.get("size");
    const size = sizeText === undefined ? headerSize : readDecimal(sizeText);
    if (size === undefined) throw wrong("an entry has no size");
    // Only files have bytes behind them, and so may what is unknown.
    this.#left = /^[1-6]$/.test(flag) ? 0 : size;
    this.#padding = paddingOf(this.#left);
    return {
      name: full.replace(/\/+$/, ""),
      kind,
      mode: (readNumber(block.subarray(100, 108)) ?? 0o644) & 0o7777,
      mtime: readNumber(block.subarray(136, 148)) ?? 0,
      size: this.#left,
      target: fields.get("linkpath") ?? readText(block.subarray(157, 257)),
    };
  }

  async #extension(size: number): Promise<Buffer> {
    if (size > MAX_EXTENSION_BYTES) throw wrong("an extended header is too large");
    const bytes = await this.#pieces.exactly(size + paddingOf(size));
    return bytes.subarray(0, size);
  }
}

function kindOf(flag: string, name: string): TarKind {
  if (flag === "5") return "directory";
  if (flag === "2") return "symlink";
  if (flag !== "0" && flag !== "\0" && flag !== "7") return "other";
  return name.endsWith("/") ? "directory" : "file";
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw wrong("a name in it is not UTF-8");
  }
}

function readText(field: Buffer): string {
  const end = field.indexOf(0);
  return decode(end === -1 ? field : field.subarray(0, end));
}

function longName(block: Buffer): string {
  const name = readText(block.subarray(0, 100));
  // GNU's own format has other things in the prefix's place.
  const prefix = block.toString("latin1", 257, 263) === "ustar\0" ? readText(block.subarray(345, 500)) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

function readDecimal(text: string): number | undefined {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  return Number.isSafeInteger(value) ? value : undefined;
}

function readRecords(bytes: Buffer, wanted: ReadonlySet<string>, into: Map<string, string>): void {
  for (let rest = bytes; rest.length > 0;) {
    const space = rest.indexOf(" ");
    const length = space === -1 ? undefined : readDecimal(rest.toString("latin1", 0, space));
    const body = length === undefined || length > rest.length ? undefined : rest.subarray(space + 1, length - 1);
    const equals = body?.indexOf("=") ?? -1;
    if (length === undefined || length <= space + 1 || body === undefined || equals < 0 || rest[length - 1] !== 0x0a) {
      throw wrong("an extended header is malformed");
    }
    const key = body.toString("latin1", 0, equals);
    if (wanted.has(key)) into.set(key, decode(body.subarray(equals + 1)));
    rest = rest.subarray(length);
  }
}

/** A number in octal, or in base 256 where its first bit is set (GNU). */
function readNumber(field: Buffer): number | undefined {
  const first = field[0] ?? 0;
  if ((first & 0x80) !== 0) {
    let value = first & 0x7f;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const text = /^ *([^ \0]*)/.exec(field.toString("latin1"))?.[1] ?? "";
  return /^[0-7]*$/.test(text) ? Number.parseInt(`0${text}`, 8) : undefined;
}
