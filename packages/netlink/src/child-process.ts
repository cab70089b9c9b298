/**
 * Child processes without fork(2). Node's own `spawn` copies the page tables of the whole process on the event loop's thread, which costs a large one tens of
 * milliseconds a child; posix_spawn(3) shares them until the child executes its program, and runs in libuv's pool here. What a child is given are
 * descriptors; it has no pipes to this process.
 */
import { constants } from "node:os";
import { errnoError } from "./errors.ts";
import { type Libc, libc } from "./transport/libc.ts";
import { asStart } from "./transport/start-gate.ts";
import { checkNumber } from "./validate.ts";

const ECHILD = 10;
/** Where the kernel can't tell of an end (before 5.3), or this process has no descriptor left to be told by, it is asked. */
const POLL_MS = 10;
const MAX_FILES = 64;

export interface ChildStart {
  /** The program's absolute path: no PATH is searched. */
  readonly path: string;
  /** What it finds as its arguments, its own name first. */
  readonly args: readonly string[];
  /** All of its environment. */
  readonly env: Readonly<Record<string, string>>;
  /** The descriptors that it finds as 0, 1, 2 and so on. They stay open here. */
  readonly files: readonly number[];
  /** Default: this process's own. */
  readonly workingDirectory?: string;
  /** Makes it the leader of a session of its own, so that what ends our terminal's programs does not end it. */
  readonly ownSession?: boolean;
  /** Signals that it ignores from its first instruction on, by number; this process ignores them from then on, too. */
  readonly ignoredSignals?: readonly number[];
}

/** How a process ended: one of the two is there. */
export interface ChildEnd {
  readonly exitCode?: number;
  readonly signal?: NodeJS.Signals;
}

/**
 * Starts a program, with every other signal in its default way and none blocked, and resolves with its pid once it runs. Whoever starts it must collect it with
 * {@link collectChild} or {@link childEnd} when it has ended: until then its pid is not given to another process.
 *
 * @throws NetlinkError with errno's name: ENOENT when there is no such program, EACCES, EAGAIN when there can be no more processes, …
 */
export async function startChild(start: ChildStart): Promise<number> {
  const operation = "start program";
  checkNumber(operation, start.path, "the number of descriptors", start.files.length, [0, MAX_FILES]);
  const result = await asStart(() => libc().spawn(start));
  if (result < 0) throw errnoError(-result, operation, start.path);
  return result;
}

/** How a child of this process ended; undefined while it runs. Collected once: afterwards the pid may be another's. @throws NetlinkError ECHILD when it is no child */
export function collectChild(pid: number): ChildEnd | undefined {
  return collect(libc(), pid);
}

/** Resolves when a child of this process has ended, and collects it. @throws NetlinkError ECHILD when it is no child */
export async function childEnd(pid: number): Promise<ChildEnd> {
  const c = libc();
  const fd = c.openProcess(pid);
  try {
    for (;;) {
      const end = collect(c, pid);
      if (end !== undefined) return end;
      if (fd >= 0) await new Promise<void>((resolve) => watchOnce(c, fd, resolve));
      else await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  } finally {
    if (fd >= 0) c.close(fd);
  }
}

function watchOnce(c: Libc, fd: number, ready: () => void): void {
  const watch = c.onceReadable(fd, () => {
    watch.close();
    ready();
  });
}

function collect(c: Libc, pid: number): ChildEnd | undefined {
  const { result, status } = c.waitNow(pid);
  if (result === 0) return undefined;
  if (result < 0) throw errnoError(result === -ECHILD ? ECHILD : -result, "collect process", String(pid));
  return decodeWaitStatus(status);
}

const SIGNAL_NAMES = new Map(
  Object.entries(constants.signals).map(([name, number]) => [number, name as NodeJS.Signals]),
);

/** The status that wait(2) gives of a process that ended. */
export function decodeWaitStatus(status: number): ChildEnd {
  const signal = status & 0x7f;
  if (signal === 0) return { exitCode: (status >> 8) & 0xff };
  const name = SIGNAL_NAMES.get(signal);
  return name === undefined ? { exitCode: 128 + signal } : { signal: name };
}
