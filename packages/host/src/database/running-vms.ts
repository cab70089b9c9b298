/** Hypervisors that run on this host, by the mark in their arguments (volantd's runtime/process-mark.ts). */
import { readFile } from "node:fs/promises";
import { listFolder } from "../linux/files.ts";
import type { RunningVm } from "./plan-restore.ts";

const MARK = /^(?:guest=)?volant:([0-9A-Za-z]{1,64}):([1-9]\d{0,9}):(\d{1,15})$/;

/** The mark in /proc/<pid>/cmdline, whose arguments each end in NUL. Pure. */
export function markOf(cmdline: string): RunningVm | undefined {
  for (const argument of cmdline.split("\0")) {
    const [, installation, vmId, generation] = MARK.exec(argument) ?? [];
    if (installation !== undefined) return { installation, vmId: Number(vmId), generation: Number(generation) };
  }
  return undefined;
}

/** Processes come and go while this looks. Empty where there is no /proc. */
export async function findRunningVms(): Promise<RunningVm[]> {
  const found: RunningVm[] = [];
  for (const entry of await listFolder("/proc")) {
    if (!/^[1-9]\d*$/.test(entry)) continue;
    // Reading fails for a process that has ended meanwhile.
    const cmdline = await readFile(`/proc/${entry}/cmdline`, "latin1").catch(() => "");
    const running = markOf(cmdline);
    if (running !== undefined) found.push(running);
  }
  return found;
}
