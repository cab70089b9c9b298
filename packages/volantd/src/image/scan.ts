/** Scans an initramfs file: cpio archives, plain or compressed, one after the other as the kernel unpacks them. */
import type { FileHandle } from "node:fs/promises";
import { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from "node:zlib";
import { ArchiveError, NewcScanner, type ScannedEntry } from "./newc.ts";

const CHUNK_BYTES = 256 * 1024;

/** The agent's place in the guest: a plugin's archive is unpacked after Volant's, and would replace it. */
const RESERVED_FOLDER = ".volant";

export interface ScanResult {
  readonly unpackedBytes: number;
  readonly entries: number;
}

function decompressor(magic: Buffer): Gunzip | ZstdDecompress {
  if (magic[0] === 0x1f && magic[1] === 0x8b) return createGunzip();
  if (magic.length >= 4 && magic.readUInt32LE(0) === 0xfd2fb528) return createZstdDecompress();
  throw new ArchiveError("is neither a cpio archive (newc) nor one that is packed with gzip or Zstandard");
}

function checkEntry(entry: ScannedEntry): void {
  const first = entry.path.split("/", 1)[0];
  if (first === RESERVED_FOLDER)
    throw new ArchiveError(`holds /${entry.path}, and /${RESERVED_FOLDER} is Volant's own`);
}

/** Unpacks what begins at `start` and scans it. Returns the position after what the decompressor took. */
async function scanCompressed(file: FileHandle, start: number, magic: Buffer, scanner: NewcScanner): Promise<number> {
  const unpack = decompressor(magic);
  const sink = new Writable({
    write(chunk: Buffer, _encoding, done) {
      try {
        if (scanner.push(chunk) < chunk.length)
          throw new ArchiveError("holds, packed, something that is no cpio entry (newc)");
        done();
      } catch (error) {
        done(error as Error);
      }
    },
  });
  try {
    await pipeline(file.createReadStream({ start, autoClose: false, highWaterMark: CHUNK_BYTES }), unpack, sink);
  } catch (error) {
    if (error instanceof ArchiveError) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? "";
    if (code.startsWith("Z_") || code.startsWith("ZSTD_"))
      throw new ArchiveError(`does not unpack: ${(error as Error).message}`);
    throw error;
  }
  return start + unpack.bytesWritten;
}

/**
 * Checks a whole initramfs and adds up what it unpacks to. Memory stays constant, whatever the file claims.
 *
 * @throws ArchiveError with a reason that completes "the initramfs …"
 */
export async function scanInitramfs(file: FileHandle, maxUnpackedBytes: number): Promise<ScanResult> {
  const { size } = await file.stat();
  let unpackedBytes = 0;
  let entries = 0;
  let scanner: NewcScanner | undefined;
  const finish = (): void => {
    if (scanner === undefined) return;
    scanner.end();
    unpackedBytes += scanner.unpackedBytes;
    entries += scanner.entries;
    scanner = undefined;
  };
  const buffer = Buffer.alloc(CHUNK_BYTES);
  let position = 0;
  while (position < size) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
    if (bytesRead === 0) break;
    const chunk = buffer.subarray(0, bytesRead);
    scanner ??= new NewcScanner(maxUnpackedBytes - unpackedBytes, checkEntry, position);
    const taken = scanner.push(chunk);
    position += taken;
    if (taken === bytesRead) continue;
    // Something that is no plain archive: what came before must be complete, and this a compressed one.
    finish();
    const packed = new NewcScanner(maxUnpackedBytes - unpackedBytes, checkEntry);
    const magic = Buffer.from(chunk.subarray(taken, taken + 4));
    const next = await scanCompressed(file, position, magic, packed);
    if (next <= position) throw new ArchiveError("does not unpack");
    position = next;
    scanner = packed;
    finish();
  }
  finish();
  if (entries === 0) throw new ArchiveError("is empty");
  return { unpackedBytes, entries };
}
