/** What a process uses, from the kernel's files about it (proc_pid_stat(5), proc_pid_status(5)). Pure. */

/** USER_HZ: in these files the kernel counts hundredths of a second on every architecture that hypervisors run on. */
const TICK_MS = 10;
/** Fields 14 and 15: time in user and in kernel mode, all threads together. */
const USER_TIME_FIELD = 14;
const START_TIME_FIELD = 22;

export interface ProcessTimes {
  /** Tells it from another process with the same pid. */
  readonly startTicks: bigint;
  readonly cpuMs: number;
}

/** Times in /proc/<pid>/stat. The name may hold spaces and parentheses: it ends at the last `)`. */
export function parseProcessTimes(stat: string): ProcessTimes | undefined {
  const close = stat.lastIndexOf(")");
  if (close === -1) return undefined;
  // The first field after the name is number 3.
  const fields = stat
    .slice(close + 2)
    .trimEnd()
    .split(" ");
  const [user, system, started] = [USER_TIME_FIELD, USER_TIME_FIELD + 1, START_TIME_FIELD].map((at) => fields[at - 3]);
  if (![user, system, started].every((field) => field !== undefined && /^\d+$/.test(field))) return undefined;
  return { startTicks: BigInt(started ?? 0), cpuMs: (Number(user) + Number(system)) * TICK_MS };
}

/** Resident memory in /proc/<pid>/status; none where the process is ending. */
export function parseResidentBytes(status: string): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(status);
  return match === null ? 0 : Number(match[1]) * 1024;
}

/** What has gone over a link, as the host counts it. */
export interface LinkTraffic {
  readonly rxBytes: number;
  readonly rxPackets: number;
  readonly txBytes: number;
  readonly txPackets: number;
}

/** The kernel's table of links (proc_pid_net(5), `dev`): two lines of heading, then `name: counters`, by name. */
export function parseLinkTraffic(table: string): Map<string, LinkTraffic> {
  const links = new Map<string, LinkTraffic>();
  for (const line of table.split("\n").slice(2)) {
    const colon = line.lastIndexOf(":");
    if (colon === -1) continue;
    const numbers = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
      .map(Number);
    const [rxBytes = 0, rxPackets = 0, txBytes = 0, txPackets = 0] = [0, 1, 8, 9].map((column) => numbers[column]);
    links.set(line.slice(0, colon).trim(), { rxBytes, rxPackets, txBytes, txPackets });
  }
  return links;
}
