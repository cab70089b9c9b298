/**
 * What marks a hypervisor's process as ours: one argument of the form `volant:<installation>:<vm id>:<generation>`, from the first program of the
 * launch's exec chain to the last. Pure parsing of the files of proc(5).
 */

export interface ProcessMark {
  readonly installation: string;
  readonly vmId: number;
  readonly generation: number;
}

export function formatProcessMark(mark: ProcessMark): string {
  return `volant:${mark.installation}:${mark.vmId}:${mark.generation}`;
}

const MARK = /^(?:guest=)?volant:([0-9A-Za-z]{1,64}):([1-9]\d{0,9}):(\d{1,15})$/;

/**
 * The mark in a process's arguments.
 *
 * @param cmdline /proc/<pid>/cmdline: arguments that each end in NUL
 */
export function findProcessMark(cmdline: string): ProcessMark | undefined {
  return findMark(cmdline, MARK);
}

function findMark(cmdline: string, pattern: RegExp): ProcessMark | undefined {
  for (const argument of cmdline.split("\0")) {
    const match = pattern.exec(argument);
    if (match?.[1] === undefined) continue;
    return { installation: match[1], vmId: Number(match[2]), generation: Number(match[3]) };
  }
  return undefined;
}

const BACKEND_MARK = /^guest-cid=\d{1,10},.*,groups=volant:([0-9A-Za-z]{1,64}):([1-9]\d{0,9}):(\d{1,15})$/;

/** The mark in the arguments of a process that serves a vsock device: the name of its group. */
export function findBackendMark(cmdline: string): ProcessMark | undefined {
  return findMark(cmdline, BACKEND_MARK);
}

export interface ProcessStat {
  /** At most 15 bytes of the program's name. */
  readonly comm: string;
  readonly state: string;
  /** Field 22: start time in clock ticks since boot. */
  readonly startTicks: bigint;
}

const START_TIME_FIELD = 22;

/** Parses /proc/<pid>/stat (proc_pid_stat(5)). The name may hold spaces and parentheses: it ends at the last `)`. */
export function parseProcessStat(text: string): ProcessStat | undefined {
  const open = text.indexOf("(");
  const close = text.lastIndexOf(")");
  if (open === -1 || close < open) return undefined;
  // The first field after the name is number 3.
  let at = close + 2;
  const state = text.slice(at, at + 1);
  for (let field = 3; field < START_TIME_FIELD; field += 1) {
    at = text.indexOf(" ", at) + 1;
    if (at === 0) return undefined;
  }
  const end = text.indexOf(" ", at);
  const startTicks = text.slice(at, end === -1 ? undefined : end).trimEnd();
  if (state.trim() === "" || !/^\d+$/.test(startTicks)) return undefined;
  return { comm: text.slice(open + 1, close), state, startTicks: BigInt(startTicks) };
}

/** Zombie and dead: the process runs no more, whether or not someone has collected it. */
export function isAlive(stat: ProcessStat): boolean {
  return stat.state !== "Z" && stat.state !== "X" && stat.state !== "x";
}
