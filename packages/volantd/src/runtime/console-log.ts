/**
 * A guest's console on disk. Three bounds, since a guest may print without end: the hypervisor can't write more than {@link MAX_FILE_BYTES} to the file
 * (RLIMIT_FSIZE), which holds while volantd is dead; volantd, while it lives, moves what is there to an archive from {@link ROTATE_AT_BYTES} on; and there
 * is one archive, which the next one replaces, besides one of the run before. What a full file did not take is marked where it is missing.
 */
import { constants, lstatSync } from "node:fs";
import { open, rename, rm, type FileHandle } from "node:fs/promises";
import { openRegular } from "./vm-folder.ts";

export const MAX_FILE_BYTES = 4 * 1024 * 1024;
export const ROTATE_AT_BYTES = 1024 * 1024;
const PIECE_BYTES = 64 * 1024;
/** How many lines they were nobody knows: the kernel refused them to the hypervisor. */
const FULL_MARK = "\n- volantd lines lost: the console's log was full and could not be moved\n";

export const TAIL_LINES = 20;
const TAIL_BYTES = 16 * 1024;
const MAX_LINE_CHARACTERS = 200;

/**
 * The last lines of a console, fit to be shown: escape sequences (ECMA-48) and control characters are gone, since a guest may print what
 * would move a terminal's cursor or retitle its window.
 */
export function tailLines(bytes: Uint8Array, limit = TAIL_LINES): string[] {
  const text = Buffer.from(bytes).toString("utf8");
  // oxlint-disable-next-line no-control-regex -- control characters are what this removes
  const plain = text.replaceAll(/\u001B(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001B]*(?:\u0007|\u001B\\)?|[@-Z\\^_])/g, "");
  return plain
    .split(/\r\n|\n|\r/)
    .map((line) => line.replaceAll(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, "").trimEnd())
    .filter((line) => line !== "")
    .slice(-limit)
    .map((line) => (line.length > MAX_LINE_CHARACTERS ? `${line.slice(0, MAX_LINE_CHARACTERS)}…` : line));
}

/** The last bytes of a file, at most 16 KiB; none when it is absent or no regular file. */
export async function readTail(path: string): Promise<Uint8Array> {
  await using file = await openRegular(path);
  if (file === undefined) return new Uint8Array();
  const { size } = await file.stat();
  const start = Math.max(0, size - TAIL_BYTES);
  const buffer = Buffer.alloc(Math.min(size, TAIL_BYTES));
  const { bytesRead } = await file.read(buffer, 0, buffer.length, start);
  return buffer.subarray(0, bytesRead);
}

/**
 * Moves the console's content to the archive when it is large, or when `always`: copied and cut off, since the hypervisor keeps the file open (in append mode, so
 * it goes on at the start). What is printed between the end of the copy and the cut is lost.
 *
 * @returns whether there was anything to move
 */
export async function archiveConsole(path: string, archivePath: string, always = false): Promise<boolean> {
  // Of most VMs there is nothing to move, and opening a file takes a thread's time.
  const seen = lstatSync(path, { throwIfNoEntry: false });
  if (seen === undefined || (seen.isFile() && seen.size < (always ? 1 : ROTATE_AT_BYTES))) return false;
  await using file = await openRegular(path, constants.O_RDWR);
  if (file === undefined) return false;
  const { size } = await file.stat();
  if (size === 0 || (size < ROTATE_AT_BYTES && !always)) return false;
  const fresh = unfinishedArchive(archivePath);
  await rm(fresh, { force: true });
  await using archive = await open(fresh, "wx", 0o600);
  // Of one that is full the first bytes give way to the mark, and not the last.
  const from = Math.max(0, size - (MAX_FILE_BYTES - FULL_MARK.length));
  const copied = await copy(file, archive, from);
  // In the archive's place before it is cut off here: whoever is killed in between has it twice and not lost it.
  await rename(fresh, archivePath);
  // What was printed meanwhile.
  const end = await copy(file, archive, copied);
  if (end >= MAX_FILE_BYTES) await archive.write(FULL_MARK, Math.min(end - from, MAX_FILE_BYTES - FULL_MARK.length));
  await file.truncate(0);
  return true;
}

/** Appends what there is from `from` on. @returns where that ends */
async function copy(file: FileHandle, archive: FileHandle, from: number): Promise<number> {
  const buffer = Buffer.alloc(PIECE_BYTES);
  let at = from;
  // The file's own limit is the archive's, too.
  while (at < MAX_FILE_BYTES) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) break;
    await archive.writeFile(buffer.subarray(0, bytesRead));
    at += bytesRead;
  }
  return at;
}

/** Where an archive is written before it takes its place; of one that was interrupted it may be left. */
export function unfinishedArchive(archivePath: string): string {
  return `${archivePath}.new`;
}
