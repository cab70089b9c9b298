/**
 * Reading a log while it is written and rotated. A reader holds a file open and a place in it, so it goes at its own pace and nothing waits for it:
 * what it costs is one descriptor and one buffer.
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { open, type FileHandle } from "node:fs/promises";
import { VolantError, type VmLogLine } from "@volant/contract";

const PIECE_BYTES = 64 * 1024;
/** Longer than any line that is written; a file with a longer one is not ours. */
const MAX_LINE_BYTES = 1024 * 1024;
const NEWLINE = 0x0a;

/** An open log file and where to read on in it. */
export interface LogPlace {
  readonly file: FileHandle;
  readonly inode: bigint;
  readonly modified: Date;
  offset: number;
  /** Once it is known. */
  identity?: string;
}

/** Opens a log file at its beginning; undefined when there is none. */
export async function openLog(path: string): Promise<LogPlace | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new VolantError("not_ready", `the log ${path} can't be read`, { cause: error });
  }
  const { ino, mtime } = await file.stat({ bigint: true });
  return { file, inode: ino, modified: mtime, offset: 0 };
}

/**
 * The place as text that outlives this process. An inode's number is used again as soon as its file is gone, so the file's first line tells it from the next
 * one: it carries a time, and never changes.
 */
export async function cursorOf(place: LogPlace): Promise<string> {
  place.identity ??= await identify(place);
  return `${place.identity}-${place.offset}`;
}

async function identify({ file, inode }: LogPlace): Promise<string> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(PIECE_BYTES), 0, PIECE_BYTES, 0);
  const end = buffer.indexOf(NEWLINE);
  const first = buffer.subarray(0, end === -1 ? bytesRead : end);
  return createHash("sha256").update(`${inode} `).update(first).digest("hex").slice(0, 16);
}

/** Moves to the cursor's place, if it is one in this file. */
export async function moveTo(place: LogPlace, cursor: string): Promise<boolean> {
  const [identity = "", offset = ""] = cursor.split("-");
  if (identity !== (await identify(place)) || Number(offset) > (await place.file.stat()).size) return false;
  place.offset = Number(offset);
  return true;
}

/** Moves to where the last `count` lines begin. @returns how many of them are not in this file */
export async function moveToTail(place: LogPlace, count: number): Promise<number> {
  const { size } = await place.file.stat();
  place.offset = size;
  const buffer = Buffer.alloc(PIECE_BYTES);
  // The line break before a line's start is looked for, so one more than there are lines.
  let wanted = count + 1;
  for (let end = size; end > 0 && count > 0;) {
    const start = Math.max(0, end - PIECE_BYTES);
    await place.file.read(buffer, 0, end - start, start);
    for (let at = end - start - 1; at >= 0; at -= 1) {
      if (buffer[at] !== NEWLINE) continue;
      wanted -= 1;
      if (wanted === 0) {
        place.offset = start + at + 1;
        return 0;
      }
    }
    end = start;
  }
  if (count > 0) place.offset = 0;
  // The first line has no line break before it.
  return count === 0 ? 0 : Math.max(0, wanted - 1);
}

/** The whole lines from the place to the end of the file as it is now; the place moves along with them. */
export async function* readLines(place: LogPlace): AsyncGenerator<string> {
  const buffer = Buffer.alloc(PIECE_BYTES);
  let held: Buffer[] = [];
  let heldBytes = 0;
  let at = place.offset;
  for (;;) {
    const { bytesRead } = await place.file.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) return;
    const piece = Buffer.from(buffer.subarray(0, bytesRead));
    let from = 0;
    for (let end = piece.indexOf(NEWLINE); end !== -1; end = piece.indexOf(NEWLINE, from)) {
      const line = Buffer.concat([...held, piece.subarray(from, end)]).toString("utf8");
      held = [];
      heldBytes = 0;
      from = end + 1;
      place.offset = at + from;
      yield line;
    }
    at += bytesRead;
    held.push(piece.subarray(from));
    heldBytes += bytesRead - from;
    if (heldBytes > MAX_LINE_BYTES) throw new VolantError("not_ready", "the stored log holds a line without an end");
  }
}

/**
 * A stored line as what it was. Remarks have no time of their own: they get that of the line before.
 *
 * @returns undefined for what nobody of ours has written
 */
export function parseStored(name: string, text: string, before: string): VmLogLine | undefined {
  const remark = /^- (agent|volantd) (.*)$/s.exec(text);
  if (remark !== null) {
    const stream = remark[1] === "agent" ? "agent" : "volantd";
    return { name, stream, line: remark[2] ?? "", timestamp: before };
  }
  const line = /^(\d{4}-\d{2}-\d{2}T[\d:.]+Z) (stdout|stderr|agent) (.*)$/s.exec(text);
  if (line === null) return undefined;
  return { name, stream: line[2] as "stdout" | "stderr" | "agent", line: line[3] ?? "", timestamp: line[1] ?? "" };
}
