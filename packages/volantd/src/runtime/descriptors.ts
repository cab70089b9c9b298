/**
 * How many file descriptors this process may still open. VMs are started from what is left beyond a reserve, so that those that run go on, and the API goes on
 * answering, when there are too many.
 */
import { readFileSync, readdirSync, statSync } from "node:fs";
import { VolantError } from "@volant/contract";

/**
 * Kept free of VMs. A launch opens up to 16 files for a moment, and 16 launches go on at a time; others of the 128 VMs at whose steps the engine works may be
 * making a tap, with one file open. The rest is for clients of the API and for looking at the host.
 */
export const DESCRIPTOR_RESERVE = 448;

export interface Descriptors {
  readonly open: number;
  /** RLIMIT_NOFILE (getrlimit(2)), as it is now. */
  readonly limit: number;
}

/** The soft limit in /proc/<pid>/limits (proc_pid_limits(5)). */
export function parseLimit(text: string): number | undefined {
  const soft = /^Max open files\s+(\d+|unlimited)\s/m.exec(text)?.[1];
  return soft === undefined ? undefined : soft === "unlimited" ? Number.POSITIVE_INFINITY : Number(soft);
}

/** @throws VolantError `exhausted` when what is left is the reserve */
export function checkDescriptors({ open, limit }: Descriptors): void {
  if (limit - open > DESCRIPTOR_RESERVE) return;
  throw new VolantError(
    "exhausted",
    `volantd has ${open} files open and may have ${limit}: what is left is for the VMs that run, and none is started`,
    { hint: "raise its limit: prlimit --nofile=65536 --pid <volantd's>, LimitNOFILE in its unit; or delete VMs" },
  );
}

/** Of a running VM: its hypervisor's control socket, and the link's to its agent. A third while something uses a stream into the guest. */
const PER_VM = 2;
/** Fewer VMs than this are what somebody might run without expecting a limit. */
const FEW_VMS = 1000;

/** What to say at the start where the limit is for few VMs; undefined where it is not. */
export function fewDescriptors({ open, limit }: Descriptors): string | undefined {
  const vms = Math.max(0, Math.floor((limit - open - DESCRIPTOR_RESERVE) / PER_VM));
  if (vms >= FEW_VMS) return undefined;
  return `volantd may have ${limit} files open, which is enough for about ${vms} VMs: raise the hard limit (ulimit -Hn), LimitNOFILE in a unit`;
}

/** @returns undefined where the kernel does not tell */
export function readDescriptors(): Descriptors | undefined {
  try {
    const limit = parseLimit(readFileSync("/proc/self/limits", "utf8"));
    // Since Linux 6.2 the size of the folder is the count, and thousands of names need not be listed.
    const open = statSync("/proc/self/fd").size || readdirSync("/proc/self/fd").length;
    return limit === undefined ? undefined : { open, limit };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    if (code !== "EMFILE" && code !== "ENFILE") throw error;
    throw new VolantError("exhausted", "volantd has no file descriptor left", { cause: error });
  }
}

/** Whether another VM may be started. @throws VolantError `exhausted` */
export function checkRoomForVm(): void {
  const seen = readDescriptors();
  if (seen !== undefined) checkDescriptors(seen);
}
