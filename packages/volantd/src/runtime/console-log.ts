/**
 * A guest's console on disk. Three bounds, since a guest may print without end: the hypervisor can't write more than {@link MAX_FILE_BYTES} to the file
 * (RLIMIT_FSIZE), which holds while volantd is dead; volantd, while it lives, moves what is there to an archive from {@link ROTATE_AT_BYTES} on; and there
 * is one archive, which the next one replaces, besides one of the run before.
 */
import { constants } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { openRegular } from "./vm-folder.ts";

export const MAX_FILE_BYTES = 4 * 1024 * 1024;
export const ROTATE_AT_BYTES = 1024 * 1024;

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
 * it goes on at the start). What is printed between copy and cut is lost.
 *
 * @returns whether there was anything to move
 */
export async function archiveConsole(path: string, archivePath: string, always = false): Promise<boolean> {
  await using file = await openRegular(path, constants.O_RDWR);
  if (file === undefined) return false;
  const { size } = await file.stat();
  if (size === 0 || (size < ROTATE_AT_BYTES && !always)) return false;
  const length = Math.min(size, MAX_FILE_BYTES);
  const content = Buffer.alloc(length);
  const { bytesRead } = await file.read(content, 0, length, size - length);
  const fresh = `${archivePath}.new`;
  await rm(fresh, { force: true });
  {
    await using archive = await open(fresh, "wx", 0o600);
    await archive.writeFile(content.subarray(0, bytesRead));
  }
  await file.truncate(0);
  await rename(fresh, archivePath);
  return true;
}
