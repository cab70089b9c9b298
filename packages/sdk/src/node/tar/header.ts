/** Headers of the tar format: ustar, with pax records where a field is too short (POSIX.1-2024, pax, "Interchange Format"). Pure. */

/** Archives are made of blocks of this size. */
export const BLOCK_BYTES = 512;
const NAME_BYTES = 100;
/** The largest number that the size field holds: eleven octal digits. */
const LARGEST_OCTAL = 0o77777777777;

/** `other`: hard links, devices, pipes. */
export type TarKind = "file" | "directory" | "symlink" | "other";

export interface TarEntry {
  /** Path, without a slash at its end. */
  readonly name: string;
  readonly kind: TarKind;
  /** Permission bits, set-id and sticky included. */
  readonly mode: number;
  /** Seconds since 1970. */
  readonly mtime: number;
  /** Bytes that follow. */
  readonly size: number;
  /** Where a symbolic link points. */
  readonly target: string;
}

/** How many zeros fill the last block of a body. */
export function paddingOf(size: number): number {
  return (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES;
}

/** The sum of a header's bytes, its own field counted as spaces. */
export function checksumOf(block: Uint8Array): number {
  let sum = 0;
  for (const [at, byte] of block.entries()) sum += at >= 148 && at < 156 ? 0x20 : byte;
  return sum;
}

/** Two blocks of zeros. */
export const TAR_END = new Uint8Array(2 * BLOCK_BYTES);

function record(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from("\n")]);
  // The length counts its own digits.
  let length = rest.length + 1;
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function header(name: Buffer, flag: string, entry: Pick<TarEntry, "mode" | "mtime" | "size">, target: Buffer): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  name.copy(block, 0, 0, NAME_BYTES);
  const octal = (value: number, digits: number) => Math.min(value, LARGEST_OCTAL).toString(8).padStart(digits, "0");
  block.write(octal(entry.mode & 0o7777, 7), 100, "latin1");
  block.write("0000000", 108, "latin1");
  block.write("0000000", 116, "latin1");
  block.write(octal(entry.size, 11), 124, "latin1");
  block.write(octal(Math.max(0, Math.trunc(entry.mtime)), 11), 136, "latin1");
  block.write(flag, 156, "latin1");
  target.copy(block, 157, 0, NAME_BYTES);
  block.write("ustar\u000000", 257, "latin1");
  block.write("root", 265, "latin1");
  block.write("root", 297, "latin1");
  block.write(`${octal(checksumOf(block), 6)}\u0000 `, 148, "latin1");
  return block;
}

const FLAGS: Readonly<Record<TarKind, string>> = { file: "0", directory: "5", symlink: "2", other: "0" };

/** The blocks in front of an entry's bytes. */
export function encodeTarEntry(entry: TarEntry): Uint8Array {
  const name = Buffer.from(entry.kind === "directory" ? `${entry.name}/` : entry.name);
  const target = Buffer.from(entry.target);
  const records = [
    ...(name.length > NAME_BYTES ? [record("path", name)] : []),
    ...(target.length > NAME_BYTES ? [record("linkpath", target)] : []),
    ...(entry.size > LARGEST_OCTAL ? [record("size", Buffer.from(String(entry.size)))] : []),
  ];
  const own = header(name, FLAGS[entry.kind], entry, target);
  if (records.length === 0) return own;
  const extension = Buffer.concat(records);
  const size = extension.length;
  const extended = header(Buffer.from("pax"), "x", { mode: 0o644, mtime: 0, size }, Buffer.alloc(0));
  return Buffer.concat([extended, extension, Buffer.alloc(paddingOf(size)), own]);
}
