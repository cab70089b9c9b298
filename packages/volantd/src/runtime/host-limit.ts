/** What a host or its operator has set a bound to, as an error of a launch tells it. Pure: such a launch was never made, and is tried again. */
import { VolantError } from "@volant/contract";

/** errno(3), for the calls that a launch consists of. */
const SENTENCES: Readonly<Partial<Record<string, readonly [sentence: string, hint: string]>>> = {
  EMFILE: [
    "volantd has no file descriptor left",
    "raise its limit: prlimit --nofile=65536 --pid <volantd's>, or delete VMs",
  ],
  ENFILE: ["this host can't have more files open", "raise the sysctl fs.file-max, or end what has so many open"],
  EAGAIN: [
    "this host can't have another process",
    "raise kernel.pid_max or the pids limit of volantd's cgroup, or end processes",
  ],
  ENOMEM: ["this host has no memory left for another process", "delete VMs, or give them less memory"],
  ENOSPC: ["the disk is full", "make room on the disk of the runtime folder (VOLANT_RUNTIME_DIR)"],
  EBUSY: ["another program has in use what it needs", "end that program; who holds a tap: fuser -v /dev/net/tun"],
  EDQUOT: ["the disk's quota is used up", "make room on the disk of the runtime folder (VOLANT_RUNTIME_DIR)"],
};

/** How programs tell of the same (strerror(3)), where it is not volantd that meets the limit but what it has started. */
const WORDS: readonly (readonly [RegExp, string])[] = [
  [/Resource temporarily unavailable/i, "EAGAIN"],
  [/Too many open files in system/i, "ENFILE"],
  [/No space left on device/i, "ENOSPC"],
];

function exhausted(vmName: string, code: string, cause: unknown, detail = ""): VolantError | undefined {
  const known = SENTENCES[code];
  if (known === undefined) return undefined;
  const [sentence, hint] = known;
  return new VolantError("exhausted", `VM ${vmName} can't be started yet: ${sentence}${detail}`, { hint, cause });
}

/**
 * The limit that made a launch fail.
 *
 * @param error what was thrown; the errno is looked for in it and in its causes
 * @returns an `exhausted` in a sentence; undefined where no limit of the host's is behind it
 */
export function hostLimit(vmName: string, error: unknown): VolantError | undefined {
  if (error instanceof VolantError && error.code === "exhausted") return error;
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const { code, path } = at as NodeJS.ErrnoException;
    const detail = path === undefined ? (error instanceof VolantError ? ` (${error.message})` : "") : ` (${path})`;
    const limit = typeof code === "string" ? exhausted(vmName, code, error, detail) : undefined;
    if (limit !== undefined) return limit;
  }
  return undefined;
}

/** The same, from what a program said before it ended: the exec chain, or the hypervisor's own threads. */
export function hostLimitInWords(vmName: string, said: readonly string[]): VolantError | undefined {
  for (const line of said) {
    const code = WORDS.find(([pattern]) => pattern.test(line))?.[1];
    if (code !== undefined) return exhausted(vmName, code, undefined, `: ${line}`);
  }
  return undefined;
}
