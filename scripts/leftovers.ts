/** What a test run may leave on a machine, looked at before and after it. */
import { readFileSync, readdirSync } from "node:fs";

export interface Inventory {
  readonly links: ReadonlySet<string>;
  readonly namespaces: ReadonlySet<string>;
  readonly processes: ReadonlySet<string>;
  readonly files: ReadonlySet<string>;
}

/** Programs that only a test would start. */
const testPrograms = /^(qemu-system|volant-stand-in|volant-confine|dnsmasq|kestrel|volantd|busybox|node$)/;

/** A directory's names; none where it is not there. */
function names(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Live processes of test programs, as `name (pid)`. A process may end while it is looked at; a zombie is no leftover of ours to end. */
function listProcesses(): string[] {
  return names("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return [];
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const name = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
      const state = stat.slice(stat.lastIndexOf(")") + 2)[0];
      return testPrograms.test(name) && state !== "Z" ? [`${name} (${pid})`] : [];
    } catch {
      return [];
    }
  });
}

/** @param scratch the run's own temporary directory */
export function takeInventory(scratch: string): Inventory {
  return {
    links: new Set(
      readFileSync("/proc/self/net/dev", "utf8")
        .split("\n")
        .slice(2)
        .map((line) => line.split(":")[0]?.trim() ?? "")
        .filter((name) => name !== ""),
    ),
    namespaces: new Set(names("/run/netns")),
    processes: new Set(listProcesses()),
    files: new Set(names(scratch).map((name) => `${scratch}/${name}`)),
  };
}

/** What is there now and was not before, one sentence fragment each. */
export function findLeftovers(before: Inventory, after: Inventory): string[] {
  const added = (kind: string, key: keyof Inventory): string[] =>
    [...after[key]].filter((name) => !before[key].has(name)).map((name) => `${kind} ${name}`);
  return [
    ...added("link", "links"),
    ...added("network namespace", "namespaces"),
    ...added("process", "processes"),
    ...added("file", "files"),
  ];
}
