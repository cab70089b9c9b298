/** What workloads print, in `<log dir>/<VM name>.log`: bounded, one older file kept. */
import { constants } from "node:fs";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { GuestLogEntry } from "../guest/log-entry.ts";

const MAX_FILE_BYTES = 1024 * 1024;
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

interface LogFile {
  waiting: string;
  dropped: number;
  writing: Promise<void> | undefined;
}

export class WorkloadLogs {
  readonly #directory: string;
  readonly #onError: (error: unknown) => void;
  readonly #files = new Map<string, LogFile>();

  constructor(directory: string, onError: (error: unknown) => void) {
    this.#directory = directory;
    this.#onError = onError;
  }

  append(vmName: string, entry: GuestLogEntry): void {
    const file = this.#files.get(vmName) ?? { waiting: "", dropped: 0, writing: undefined };
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
    for (const path of [this.#path(vmName), `${this.#path(vmName)}.1`]) await rm(path, { force: true });
  }

  /** The last line in a VM's log, as {@link logText} wrote it: where an earlier volantd stopped. */
  async lastLine(vmName: string): Promise<string | undefined> {
    for (const path of [this.#path(vmName), `${this.#path(vmName)}.1`]) {
      const lines = (await readTail(path)).split("\n");
      // What follows the last line break is not a whole line.
      const last = lines.at(-2);
      if (last !== undefined) return `${last}\n`;
    }
    return undefined;
  }

  /** Resolves when all that was appended is in its files. */
  async flush(): Promise<void> {
    await Promise.all([...this.#files.values()].map(({ writing }) => writing));
  }

  #path(vmName: string): string {
    return join(this.#directory, `${vmName}.log`);
  }

  async #write(vmName: string, file: LogFile): Promise<void> {
    try {
      while (file.waiting !== "") {
        const lost = file.dropped === 0 ? "" : `- volantd ${file.dropped} lines came too fast and were dropped\n`;
        const text = file.waiting + lost;
        file.waiting = "";
        file.dropped = 0;
        await this.#appendTo(this.#path(vmName), text);
      }
    } catch (error) {
      // A full disk must not stop what the log is about.
      file.waiting = "";
      this.#onError(error);
    } finally {
      file.writing = undefined;
    }
  }

  async #appendTo(path: string, text: string): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o750 });
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_NOFOLLOW;
    let full: boolean;
    {
      await using file = await open(path, flags, 0o640);
      await file.appendFile(text);
      full = (await file.stat()).size >= MAX_FILE_BYTES;
    }
    if (full) await rename(path, `${path}.1`);
  }
}
