/** What workloads print, in `<log dir>/<VM name>.log`: bounded, one older file kept. */
import { constants, lstatSync } from "node:fs";
import { type FileHandle, mkdir, open, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import type { GuestLogEntry } from "../guest/log-entry.ts";

export const DEFAULT_LOG_FILE_BYTES = 1024 * 1024;
/** Text that waits for the disk; what is beyond is dropped, and said. */
const MAX_WAITING_BYTES = 1024 * 1024;

/** One line of a log file. Control characters are shown, not written: a guest can't drive the terminal of whoever reads this. */
export function logText(entry: GuestLogEntry): string {
  if (entry.kind === "gap") return `- agent lines ${entry.from} to ${entry.to} were lost\n`;
  // oxlint-disable-next-line no-control-regex
  const visible = entry.line.replaceAll(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u2028\u2029]/g, escape);
  return `${entry.timestamp} ${entry.stream} ${visible}${entry.truncated ? " …" : ""}\n`;
}

function escape(character: string): string {
  return `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`;
}

/** Longer than any line. */
const TAIL_BYTES = 256 * 1024;

async function readTail(path: string): Promise<string> {
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const { size } = await file.stat();
    const length = Math.min(size, TAIL_BYTES);
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, size - length);
    return buffer.toString("utf8");
  } catch {
    // No log, no last line.
    return "";
  }
}

/** Absent already is no error, and costs no wait: most VMs' workloads have printed less than two files. */
async function removeFile(path: string): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return;
  try {
    await unlink(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

/** What was written of a text: whole lines, and why it was not all of them. */
interface Written {
  readonly lines: number;
  /** Of the file, with it. */
  readonly bytes: number;
  readonly failure?: unknown;
}

/** Appends a text, or as many whole lines of it as there is room for: what is cut off would run into the next one. */
async function appendLines(file: FileHandle, text: string): Promise<Written> {
  const bytes = Buffer.from(text);
  const { size } = await file.stat();
  let at = 0;
  try {
    while (at < bytes.length) at += (await file.write(bytes, at)).bytesWritten;
    return { lines: countLines(text), bytes: size + at };
  } catch (failure) {
    const whole = bytes.subarray(0, at).toString("latin1").lastIndexOf("\n") + 1;
    await file.truncate(size + whole);
    return { lines: countLines(bytes.toString("latin1", 0, whole)), bytes: size + whole, failure };
  }
}

function countLines(text: string): number {
  return text.split("\n").length - 1;
}

function lossReason(error: unknown): string {
  const { code = "an unknown error" } = error as NodeJS.ErrnoException;
  return code === "ENOSPC" || code === "EDQUOT" ? "the disk was full" : `the log could not be written (${code})`;
}

/** Called when there is more to read, or when the log was removed. */
export type LogWatcher = (what: "written" | "removed") => void;

interface LogFile {
  waiting: string;
  /** Lines that came too fast since something was last written. */
  dropped: number;
  /** Lines that could not be written, and why: said as soon as one can. */
  lost: { readonly lines: number; readonly why: string } | undefined;
  writing: Promise<void> | undefined;
}

export class WorkloadLogs {
  readonly #directory: string;
  readonly #onError: (error: unknown) => void;
  readonly #files = new Map<string, LogFile>();
  readonly #watchers = new Map<string, Set<LogWatcher>>();

  readonly #maxFileBytes: number;

  /** @param maxFileBytes a file that has grown beyond it is kept as the older one, in place of that which was */
  constructor(directory: string, onError: (error: unknown) => void, maxFileBytes = DEFAULT_LOG_FILE_BYTES) {
    this.#directory = directory;
    this.#maxFileBytes = maxFileBytes;
    this.#onError = onError;
  }

  append(vmName: string, entry: GuestLogEntry): void {
    const file = this.#files.get(vmName) ?? { waiting: "", dropped: 0, lost: undefined, writing: undefined };
    this.#files.set(vmName, file);
    if (file.waiting.length > MAX_WAITING_BYTES) file.dropped += 1;
    else file.waiting += logText(entry);
    file.writing ??= this.#write(vmName, file);
  }

  /** Removes what a VM's workload has printed. */
  async remove(vmName: string): Promise<void> {
    const file = this.#files.get(vmName);
    this.#files.delete(vmName);
    if (file !== undefined) {
      file.waiting = "";
      await file.writing;
    }
    for (const path of this.paths(vmName)) await removeFile(path);
    this.#tell(vmName, "removed");
  }

  /** The file that is written, and the one before it. Either may be absent. */
  paths(vmName: string): readonly [present: string, before: string] {
    const path = join(this.#directory, `${vmName}.log`);
    return [path, `${path}.1`];
  }

  /** Calls `watcher` until the function that this returns is called. */
  watch(vmName: string, watcher: LogWatcher): () => void {
    const watchers = this.#watchers.get(vmName) ?? new Set();
    this.#watchers.set(vmName, watchers.add(watcher));
    return () => {
      watchers.delete(watcher);
      if (watchers.size === 0 && this.#watchers.get(vmName) === watchers) this.#watchers.delete(vmName);
    };
  }

  #tell(vmName: string, what: "written" | "removed"): void {
    for (const watcher of this.#watchers.get(vmName) ?? []) watcher(what);
  }

  /** The last line in a VM's log, as {@link logText} wrote it: where an earlier volantd stopped. */
  async lastLine(vmName: string): Promise<string | undefined> {
    for (const path of this.paths(vmName)) {
      // What follows the last line break is not a whole line, and volantd's remarks are none of the workload's.
      const lines = (await readTail(path)).split("\n").slice(0, -1);
      const last = lines.findLast((line) => !line.startsWith("- volantd "));
      if (last !== undefined) return `${last}\n`;
    }
    return undefined;
  }

  /** Resolves when all that was appended, or all of one VM's, is in its files. */
  async flush(vmName?: string): Promise<void> {
    const files = vmName === undefined ? [...this.#files.values()] : [this.#files.get(vmName)];
    await Promise.all(files.map((file) => file?.writing));
  }

  async #write(vmName: string, file: LogFile): Promise<void> {
    try {
      while (file.waiting !== "") {
        const { waiting, dropped, lost } = file;
        file.waiting = "";
        file.dropped = 0;
        const before = lost === undefined ? "" : `- volantd ${lost.lines} lines lost: ${lost.why}\n`;
        const after = dropped === 0 ? "" : `- volantd ${dropped} lines came too fast and were dropped\n`;
        const { lines, failure } = await this.#appendTo(this.paths(vmName)[0], before + waiting + after);
        const isTold = lost === undefined || lines > 0;
        if (isTold) file.lost = undefined;
        if (lines > 0) this.#tell(vmName, "written");
        if (failure === undefined) continue;
        // A full disk must not stop what the log is about.
        const written = Math.max(0, lines - countLines(before));
        const missing = countLines(waiting) - written + dropped + (file.lost?.lines ?? 0);
        if (missing > 0) file.lost = { lines: missing, why: lossReason(failure) };
        this.#onError(failure);
      }
    } finally {
      file.writing = undefined;
    }
  }

  /** Somebody may have removed the folder. */
  async #open(path: string): Promise<FileHandle> {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW;
    try {
      return await open(path, flags, 0o640);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      await mkdir(this.#directory, { recursive: true, mode: 0o750 });
      return await open(path, flags, 0o640);
    }
  }

  async #appendTo(path: string, text: string): Promise<Written> {
    let written: Written = { lines: 0, bytes: 0 };
    try {
      {
        await using file = await this.#open(path);
        written = await appendLines(file, text);
      }
      if (written.bytes >= this.#maxFileBytes) await rename(path, `${path}.1`);
      return written;
    } catch (failure) {
      return { ...written, failure };
    }
  }
}
