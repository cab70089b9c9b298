/**
 * The cpio "newc" format that Linux unpacks an initramfs from (Documentation/driver-api/early-userspace/buffer-format.rst; init/initramfs.c). Pure: a writer, and
 * a scanner for archives that anyone may have made.
 *
 * An entry is a header of 110 characters (magic and 13 hexadecimal numbers of 8 digits), the name with its NUL, and the content, header plus name
 * and content each padded to a multiple of 4. The entry named TRAILER!!! ends an archive; further ones may follow, after any number of zero bytes.
 */

const HEADER_BYTES = 110;
const TRAILER = "TRAILER!!!";
/** PATH_MAX: the kernel's unpacker leaves longer names out. */
const MAX_NAME_BYTES = 4096;
const MAX_ENTRIES = 1_000_000;
/** Padding between archives is at most a block of some medium; gzip packs zero bytes a thousandfold, so there has to be an end. */
const MAX_GAP_BYTES = 64 * 1024 * 1024;
const PAGE_BYTES = 4096;
/** What the kernel keeps for a file besides its pages: an inode and a directory entry (about 0.6 and 0.2 KB). */
const INODE_BYTES = 1024;

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const FILE_TYPES = new Set([S_IFREG, S_IFDIR, S_IFLNK, 0o020000, 0o060000, 0o010000, 0o140000]);

/** Bytes that are no archive the kernel would unpack. The message completes "the initramfs …". */
export class ArchiveError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "ArchiveError";
  }
}

export interface NewcEntry {
  /** Relative, without a leading `/` or `./`. */
  readonly path: string;
  readonly kind: "file" | "directory" | "symlink" | "character-device";
  /** Permission bits. */
  readonly mode: number;
  /** A file's content, or a symbolic link's target. */
  readonly content?: Uint8Array;
  readonly device?: { readonly major: number; readonly minor: number };
}

const TYPE_BITS = { file: S_IFREG, directory: S_IFDIR, symlink: S_IFLNK, "character-device": 0o020000 } as const;

function pad4(length: number): number {
  return (4 - (length % 4)) % 4;
}

function encodeEntry(entry: NewcEntry, mode: number, inode: number): Buffer {
  const name = Buffer.from(`${entry.path}\0`);
  const content = entry.content ?? new Uint8Array();
  const numbers = [
    [inode, mode, 0, 0, entry.kind === "directory" ? 2 : 1, 0, content.length, 0, 0],
    [entry.device?.major ?? 0, entry.device?.minor ?? 0, name.length, 0],
  ].flat();
  const header = `070701${numbers.map((number) => number.toString(16).padStart(8, "0")).join("")}`;
  return Buffer.concat([
    Buffer.from(header, "latin1"),
    name,
    Buffer.alloc(pad4(HEADER_BYTES + name.length)),
    content,
    Buffer.alloc(pad4(content.length)),
  ]);
}

/** One archive with its trailer. The same entries give the same bytes: no times, all owned by root. Its length is a multiple of 4, so another may follow at once. */
export function encodeNewc(entries: readonly NewcEntry[]): Buffer {
  const parts = entries.map((entry, index) =>
    encodeEntry(entry, TYPE_BITS[entry.kind] | (entry.mode & 0o7777), index + 1),
  );
  parts.push(encodeEntry({ path: TRAILER, kind: "file", mode: 0 }, 0, 0));
  return Buffer.concat(parts);
}

/** A path as the kernel will see it: no leading or doubled slash, no `.` parts. */
function normalise(path: string): string {
  return path
    .split("/")
    .filter((part) => part !== "" && part !== ".")
    .join("/");
}

export interface ScannedEntry {
  readonly path: string;
  readonly type: number;
  readonly bytes: number;
}

type State =
  | { readonly at: "gap" }
  | { readonly at: "header" }
  | { readonly at: "name"; readonly header: Header }
  | { readonly at: "content"; left: number };

interface Header {
  readonly mode: number;
  readonly size: number;
  readonly nameSize: number;
}

function parseHeader(bytes: Buffer): Header {
  const text = bytes.toString("latin1");
  const magic = text.slice(0, 6);
  if (magic !== "070701" && magic !== "070702") throw new ArchiveError("holds something that is no cpio entry (newc)");
  if (!/^[0-9A-Fa-f]{104}$/.test(text.slice(6))) throw new ArchiveError("holds an entry with a damaged header");
  const number = (index: number): number => Number.parseInt(text.slice(6 + index * 8, 14 + index * 8), 16);
  return { mode: number(1), size: number(6), nameSize: number(11) };
}

/**
 * Reads archives piece by piece, in constant memory, and checks what the kernel would only stumble over at boot.
 *
 * `push` stops where an archive has ended and something follows that is not a further archive, so that a caller can see whether that is a compressed one.
 */
export class NewcScanner {
  #state: State = { at: "gap" };
  /** Position in the stream modulo 4, which is what padding is counted from. */
  #position: number;
  #collected: Buffer[] = [];
  #collectedBytes = 0;
  #gapBytes = 0;
  #entries = 0;
  #unpackedBytes = 0;
  #maxUnpackedBytes: number;
  #onEntry: (entry: ScannedEntry) => void;

  /** @param start where in its file the stream begins: archives are aligned to the file */
  constructor(maxUnpackedBytes: number, onEntry: (entry: ScannedEntry) => void = () => {}, start = 0) {
    this.#position = start % 4;
    this.#maxUnpackedBytes = maxUnpackedBytes;
    this.#onEntry = onEntry;
  }

  /** Memory that the guest's kernel will hold the files in, in bytes: whole pages, and something for each inode. */
  get unpackedBytes(): number {
    return this.#unpackedBytes;
  }

  get entries(): number {
    return this.#entries;
  }

  /**
   * Takes the next bytes.
   *
   * @returns how many were taken: fewer than given when something follows an archive that is neither zero bytes nor another one
   * @throws ArchiveError
   */
  push(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.length) {
      const taken = this.#step(chunk.subarray(at));
      if (taken === 0) return at;
      at += taken;
      this.#position = (this.#position + taken) % 4;
    }
    return at;
  }

  /** To be called at the end of the stream. @throws ArchiveError when that is in the middle of an archive */
  end(): void {
    if (this.#state.at !== "gap") throw new ArchiveError("is cut off");
  }

  #step(bytes: Buffer): number {
    switch (this.#state.at) {
      case "gap":
        return this.#skipGap(bytes);
      case "header": {
        const [header, taken] = this.#collect(bytes, HEADER_BYTES);
        if (header !== undefined) this.#beginEntry(parseHeader(header));
        return taken;
      }
      case "name": {
        const { header } = this.#state;
        const [name, taken] = this.#collect(bytes, header.nameSize + pad4(HEADER_BYTES + header.nameSize));
        if (name !== undefined) this.#finishName(header, name.subarray(0, header.nameSize));
        return taken;
      }
      case "content": {
        const taken = Math.min(bytes.length, this.#state.left);
        this.#state.left -= taken;
        if (this.#state.left === 0) this.#state = { at: "header" };
        return taken;
      }
    }
  }

  /** Zero bytes are skipped; an archive begins at a multiple of 4 with an ASCII "0", as the kernel has it. */
  #skipGap(bytes: Buffer): number {
    let zeros = 0;
    while (zeros < bytes.length && bytes[zeros] === 0) zeros += 1;
    this.#gapBytes += zeros;
    if (this.#gapBytes > MAX_GAP_BYTES) throw new ArchiveError("holds nothing but zero bytes for too long");
    if (zeros > 0) return zeros;
    if (bytes[0] !== 0x30) return 0;
    if (this.#position !== 0) throw new ArchiveError("holds an archive that does not begin at a multiple of 4 bytes");
    this.#state = { at: "header" };
    return this.#step(bytes);
  }

  /** Gathers `wanted` bytes over as many pieces as it takes. */
  #collect(bytes: Buffer, wanted: number): [whole: Buffer | undefined, taken: number] {
    const taken = Math.min(bytes.length, wanted - this.#collectedBytes);
    // Pieces of the caller's chunk are copied: it may use its buffer again.
    this.#collected.push(Buffer.from(bytes.subarray(0, taken)));
    this.#collectedBytes += taken;
    if (this.#collectedBytes < wanted) return [undefined, taken];
    const whole = Buffer.concat(this.#collected);
    this.#collected = [];
    this.#collectedBytes = 0;
    return [whole, taken];
  }

  #beginEntry(header: Header): void {
    if (header.nameSize < 1 || header.nameSize > MAX_NAME_BYTES)
      throw new ArchiveError("holds a name of a length that can't be");
    this.#state = { at: "name", header };
  }

  #finishName(header: Header, name: Buffer): void {
    if (name.indexOf(0) !== name.length - 1) throw new ArchiveError("holds a name that does not end in NUL");
    const text = name.subarray(0, -1).toString("utf8");
    if (text === TRAILER) {
      if (header.size !== 0) throw new ArchiveError("holds a trailer with content");
      this.#gapBytes = 0;
      this.#state = { at: "gap" };
      return;
    }
    const type = header.mode & S_IFMT;
    if (!FILE_TYPES.has(type)) throw new ArchiveError(`holds ${JSON.stringify(text)}, which is of no kind of file`);
    if (type === S_IFLNK && header.size > MAX_NAME_BYTES)
      throw new ArchiveError("holds a symbolic link that is too long");
    this.#count(type === S_IFREG ? header.size : 0);
    this.#onEntry({ path: normalise(text), type, bytes: header.size });
    const left = header.size + pad4(header.size);
    this.#state = left === 0 ? { at: "header" } : { at: "content", left };
  }

  #count(bytes: number): void {
    this.#entries += 1;
    this.#unpackedBytes += Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES + INODE_BYTES;
    if (this.#entries > MAX_ENTRIES) throw new ArchiveError(`holds more than ${MAX_ENTRIES} entries`);
    if (this.#unpackedBytes > this.#maxUnpackedBytes) {
      throw new ArchiveError(`unpacks to more than ${Math.floor(this.#maxUnpackedBytes / 1024 / 1024)} MiB`);
    }
  }
}
