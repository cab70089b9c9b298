/** Reads the kernel's process table for hypervisors that carry an installation's mark. */
import { closeSync, openSync, readFileSync, readSync, readdirSync, statSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { findBackendMark, findProcessMark, isAlive, parseProcessStat, type ProcessStat } from "./process-mark.ts";
import type { HypervisorProcess } from "./runtime.ts";

/** Linux keeps at most that many bytes of a program's name (TASK_COMM_LEN, less the NUL). */
const COMM_BYTES = 15;
/** Reads of /proc take microseconds each and never block: so many are done before others get their turn. */
const READS_A_TURN = 100;

/**
 * The process ended between being listed and being read. Nothing else may pass for that: whoever can't read /proc for want of a file descriptor would take
 * every VM for dead.
 */
export function hasEnded(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ESRCH";
}

function read(path: string): string | undefined {
  try {
    // What is looked for in it is ASCII, and for UTF-8 alone Node makes no buffer of 8 KiB to read into.
    return readFileSync(path, "utf8");
  } catch (error) {
    if (hasEnded(error)) return undefined;
    throw error;
  }
}

/** Longer than any /proc/<pid>/stat: 52 fields, most of them short. */
const STAT_BYTES = 2048;
const statBuffer = Buffer.alloc(STAT_BYTES);

/** A look reads one for each process of the host, so it is done with three system calls and no memory of its own. */
function processStat(pid: number): ProcessStat | undefined {
  let fd: number;
  try {
    fd = openSync(`/proc/${pid}/stat`, "r");
  } catch (error) {
    if (hasEnded(error)) return undefined;
    throw error;
  }
  try {
    return parseProcessStat(statBuffer.toString("latin1", 0, readSync(fd, statBuffer, 0, STAT_BYTES, null)));
  } catch (error) {
    if (hasEnded(error)) return undefined;
    throw error;
  } finally {
    closeSync(fd);
  }
}

/**
 * Whether the process with this pid is still the one that started at `startTicks`, and no zombie.
 *
 * @throws Error when that can't be read, such as EMFILE
 */
export function isRunning(process: { readonly pid: number; readonly startTicks: bigint }): boolean {
  const stat = processStat(process.pid);
  return stat !== undefined && stat.startTicks === process.startTicks && isAlive(stat);
}

/** Start time of a live process in clock ticks since boot; undefined when there is none with this pid. @throws as {@link isRunning} */
export function startTicksOf(pid: number): bigint | undefined {
  const stat = processStat(pid);
  return stat !== undefined && isAlive(stat) ? stat.startTicks : undefined;
}

export interface ProcessScan {
  readonly installation: string;
  /** File names of the programs that can be on the way from launch to hypervisor. */
  readonly programs: readonly string[];
  /** Owner that a VM's process has; root, too, is believed, since a launch begins there. */
  uidOf(vmId: number): number;
  /** Whether a process that an earlier scan found is known to live, without a look at it: reading a thousand takes tens of milliseconds. */
  isKnownToLive?(process: HypervisorProcess): boolean;
  /** Looks at all processes; otherwise at those that {@link KnownProcesses} names, once it does. Default: it does. */
  readonly isWhole?: boolean;
  /** How many processes are read before others get their turn. Default: 100. */
  readonly readsATurn?: number;
}

/** What a marked process is: a hypervisor, or what serves the vsock device of one. */
export interface MarkedProcess extends HypervisorProcess {
  readonly role: "hypervisor" | "vsock_backend";
}

/** Whole scans after which no process of ours can be unknown that this program has not started: what execs a program of ours does so within milliseconds of its start. */
const WHOLE_SCANS = 2;

/**
 * What earlier scans found: a process that is still the same need not be asked for its arguments again, nor one that is otherwise known to live for anything. And
 * a scan that is not whole looks at these alone: listing the processes of a host with a thousand guests takes longer than all else that it does.
 */
export class KnownProcesses {
  readonly ours = new Map<number, MarkedProcess>();
  /** Have been started by this program, and were not seen to be ours yet. */
  readonly #fresh = new Set<number>();
  #wholeScans = 0;
  #tail: Promise<unknown> = Promise.resolve();

  /** A process of ours has been started. */
  started(pid: number): void {
    this.#fresh.add(pid);
  }

  /** Those to look at where not all are; undefined while there may be others. */
  get candidates(): readonly number[] | undefined {
    // A whole scan may have found one before whoever started it has said so.
    return this.#wholeScans < WHOLE_SCANS ? undefined : [...new Set([...this.ours.keys(), ...this.#fresh])];
  }

  /** Scans that share what is known come one after another: what one has found would be lost to the other. */
  alone<T>(scan: () => Promise<T>): Promise<T> {
    const run = this.#tail.then(scan);
    this.#tail = run.catch(() => undefined);
    return run;
  }

  /** A scan is over. @param gone no process has these pids */
  scanned(found: readonly MarkedProcess[], gone: readonly number[], isWhole: boolean): void {
    if (isWhole) this.#wholeScans += 1;
    this.ours.clear();
    for (const process of found) {
      this.ours.set(process.pid, process);
      this.#fresh.delete(process.pid);
    }
    for (const pid of gone) this.#fresh.delete(pid);
  }
}

/**
 * All live processes of an installation. The arguments of a process are its own word, so a mark is believed only where program and owner fit:
 * no unprivileged user can pass a process of his for a hypervisor.
 *
 * @param known kept by the caller from one scan to the next, and brought up to date here
 */
export function scanProcesses(scan: ProcessScan, known = new KnownProcesses()): Promise<MarkedProcess[]> {
  return known.alone(() => scanAlone(scan, known));
}

async function scanAlone(scan: ProcessScan, known: KnownProcesses): Promise<MarkedProcess[]> {
  const { isWhole = true, readsATurn = READS_A_TURN } = scan;
  const programs = new Set(scan.programs.map((name) => name.slice(0, COMM_BYTES)));
  const found: MarkedProcess[] = [];
  const gone: number[] = [];
  let count = 0;
  for (const pid of (isWhole ? undefined : known.candidates) ?? allPids()) {
    const before = known.ours.get(pid);
    if (before !== undefined && scan.isKnownToLive?.(before) === true) {
      found.push(before);
      continue;
    }
    count += 1;
    if (count % readsATurn === 0) await nextTurn();
    const stat = processStat(pid);
    if (stat === undefined || !isAlive(stat)) gone.push(pid);
    else if (programs.has(stat.comm)) {
      const process = before?.startTicks === stat.startTicks ? before : identify(scan, pid, stat.startTicks);
      if (process !== undefined) found.push(process);
    }
  }
  known.scanned(found, gone, isWhole);
  return found;
}

/** Off Linux no hypervisor is started, and there is no such folder to find one in. */
function allPids(): number[] {
  const entries = process.platform === "linux" ? readdirSync("/proc") : [];
  return entries.filter((entry) => /^[1-9]\d*$/.test(entry)).map(Number);
}

function identify(scan: ProcessScan, pid: number, startTicks: bigint): MarkedProcess | undefined {
  const cmdline = read(`/proc/${pid}/cmdline`) ?? "";
  const hypervisor = findProcessMark(cmdline);
  const mark = hypervisor ?? findBackendMark(cmdline);
  if (mark === undefined || mark.installation !== scan.installation) return undefined;
  const owner = ownerOf(pid);
  if (owner !== 0 && owner !== scan.uidOf(mark.vmId)) return undefined;
  const role = hypervisor === undefined ? "vsock_backend" : "hypervisor";
  return { vmId: mark.vmId, generation: mark.generation, pid, startTicks, role };
}

function ownerOf(pid: number): number | undefined {
  try {
    return statSync(`/proc/${pid}`).uid;
  } catch {
    return undefined;
  }
}
