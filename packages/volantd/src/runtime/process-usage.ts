/** Reads what processes and links use from /proc. */
import { readFileSync } from "node:fs";
import { VolantError } from "@volant/contract";
import { parseLinkTraffic, parseProcessTimes, parseResidentBytes, type LinkTraffic } from "../model/process-usage.ts";
import { hasEnded } from "./process-table.ts";
import type { HypervisorProcess } from "./runtime.ts";

export interface ProcessUsage {
  readonly cpuMs: number;
  readonly residentBytes: number;
}

/** The file's text; undefined where there is none, be it that the process has ended or that this is no Linux. @throws VolantError `exhausted` without a descriptor */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (hasEnded(error)) return undefined;
    if (code !== "EMFILE" && code !== "ENFILE") throw error;
    throw new VolantError("exhausted", "volantd has no file descriptor left to look at its VMs with", {
      hint: "raise its limit: prlimit --nofile=65536 --pid <volantd's>",
      cause: error,
    });
  }
}

/** What a hypervisor uses; undefined where it has ended. @throws VolantError `exhausted` */
export function readProcessUsage({
  pid,
  startTicks,
}: Pick<HypervisorProcess, "pid" | "startTicks">): ProcessUsage | undefined {
  const status = read(`/proc/${pid}/status`);
  // After the other file: where the pid has been given to somebody else meanwhile, this one tells.
  const times = parseProcessTimes(read(`/proc/${pid}/stat`) ?? "");
  if (status === undefined || times?.startTicks !== startTicks) return undefined;
  return { cpuMs: times.cpuMs, residentBytes: parseResidentBytes(status) };
}

/** What has gone over the links of this network namespace, by name. @throws VolantError `exhausted` */
export function readLinkTraffic(): Map<string, LinkTraffic> {
  return parseLinkTraffic(read("/proc/self/net/dev") ?? "");
}
