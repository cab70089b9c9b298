/** Reads the kernel's process table for hypervisors that carry an installation's mark. */
import { readFileSync, readdirSync, statSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { findProcessMark, isAlive, parseProcessStat, type ProcessStat } from "./process-mark.ts";
import type { HypervisorProcess } from "./runtime.ts";

/** Linux keeps at most that many bytes of a program's name (TASK_COMM_LEN, less the NUL). */
const COMM_BYTES = 15;
/** Reads of /proc take microseconds each and never block: so many are done before others get their turn. */
const BATCH = 100;

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // The process ended between being listed and being read.
    return undefined;
  }
}

function processStat(pid: number): ProcessStat | undefined {
  const text = read(`/proc/${pid}/stat`);
  return text === undefined ? undefined : parseProcessStat(text);
}

/** Whether the process with this pid is still the one that started at `startTicks`, and no zombie. */
export function isRunning(process: { readonly pid: number; readonly startTicks: bigint }): boolean {
  const stat = processStat(process.pid);
  return stat !== undefined && stat.startTicks === process.startTicks && isAlive(stat);
}

/** Start time of a live process in clock ticks since boot; undefined when there is none with this pid. */
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
}

/** What an earlier scan found, by pid: a process that is still the same need not be asked for its arguments again. */
export type KnownProcesses = Map<number, HypervisorProcess>;

/**
 * All live processes of an installation. The arguments of a process are its own word, so a mark is believed only where program and owner fit:
 * no unprivileged user can pass a process of his for a hypervisor.
 *
 * @param known kept by the caller from one scan to the next, and brought up to date here
 */
export async function scanProcesses(
  scan: ProcessScan,
  known: KnownProcesses = new Map(),
): Promise<HypervisorProcess[]> {
  const programs = new Set(scan.programs.map((name) => name.slice(0, COMM_BYTES)));
  const found: HypervisorProcess[] = [];
  let count = 0;
  for (const entry of readdirSync("/proc")) {
    if (!/^[1-9]\d*$/.test(entry)) continue;
    count += 1;
    if (count % BATCH === 0) await nextTurn();
    const pid = Number(entry);
    const stat = processStat(pid);
    if (stat === undefined || !programs.has(stat.comm) || !isAlive(stat)) continue;
    const before = known.get(pid);
    const process = before?.startTicks === stat.startTicks ? before : identify(scan, pid, stat.startTicks);
    if (process !== undefined) found.push(process);
  }
  known.clear();
  for (const process of found) known.set(process.pid, process);
  return found;
}

function identify(scan: ProcessScan, pid: number, startTicks: bigint): HypervisorProcess | undefined {
  const mark = findProcessMark(read(`/proc/${pid}/cmdline`) ?? "");
  if (mark === undefined || mark.installation !== scan.installation) return undefined;
  const owner = ownerOf(pid);
  if (owner !== 0 && owner !== scan.uidOf(mark.vmId)) return undefined;
  return { vmId: mark.vmId, generation: mark.generation, pid, startTicks };
}

function ownerOf(pid: number): number | undefined {
  try {
    return statSync(`/proc/${pid}`).uid;
  } catch {
    return undefined;
  }
}
