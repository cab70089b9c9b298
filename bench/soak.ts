/**
 * `npm run bench -- soak [minutes]`: one volantd works for long under the model's clients and faults (test/model), with the stand-in hypervisor, and must hold
 * as much at the end as at the beginning. It stops by itself.
 *
 * Seeds are new each time: more is found so, and a failure prints its own. volantd alone is not killed here: a new one would begin with nothing, and hide what
 * the old one had gathered.
 */
import { randomInt } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { StandInHouse } from "../test/crash/stand-in.ts";
import { taps } from "../test/model/faults.ts";
import { Runner } from "../test/model/runner.ts";
import { findProcesses } from "../test/vm/house.ts";
import { onInterrupt } from "./interrupt.ts";
import type { BenchResult } from "./result.ts";
import { LEAST_SAMPLES, soakVerdict, type Limit, type Sample } from "./soak-verdict.ts";

const SAMPLE_EVERY_MS = 10_000;
const MOST_COMMANDS = 400;
/** A run that is under way when time is up ends first; one that takes longer than this is stuck. */
const OVERTIME_MS = 600_000;

/** volantd's own memory and descriptors; and of the host's and the store's, which go up and down with the VMs that are there, what their clients leave. */
const LIMITS = {
  "file descriptors": { unit: "", part: 0.1, more: 16 },
  "resident memory": { unit: "MiB", part: 0.15, more: 8 },
  "heap (anonymous memory)": { unit: "MiB", part: 0.15, more: 8 },
  threads: { unit: "", part: 0, more: 2 },
  rows: { unit: "", part: 0.25, more: 20 },
  taps: { unit: "", part: 0.25, more: 5 },
  files: { unit: "", part: 0.25, more: 40 },
  processes: { unit: "", part: 0.25, more: 5 },
} as const satisfies Readonly<Record<string, Limit>>;

type Measured = Sample<keyof typeof LIMITS>;

function countRows(path: string): number {
  const database = new DatabaseSync(path, { readOnly: true });
  try {
    const tables = ["vms", "vm_configs", "leases WHERE released_at IS NULL", "published_ports"];
    const counts = tables.map((table) =>
      Number(database.prepare(`SELECT count(*) AS count FROM ${table}`).get()?.["count"]),
    );
    return counts.reduce((sum, count) => sum + count, 0);
  } finally {
    database.close();
  }
}

function countFiles(...folders: readonly (string | undefined)[]): number {
  const counts = folders.map((folder) => readdirSync(folder ?? "", { recursive: true }).length);
  return counts.reduce((sum, count) => sum + count, 0);
}

function measure({ house, installation }: StandInHouse): Measured {
  const pid = house.volantdPid;
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const field = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1]);
  const { environment } = house;
  return {
    "file descriptors": readdirSync(`/proc/${pid}/fd`).length,
    "resident memory": field("VmRSS") / 1024,
    "heap (anonymous memory)": field("RssAnon") / 1024,
    threads: field("Threads"),
    rows: countRows(environment["VOLANT_DB_PATH"] ?? ""),
    taps: taps().length,
    files: countFiles(environment["VOLANT_RUNTIME_DIR"], environment["VOLANT_LOG_DIR"], environment["VOLANT_WORK_DIR"]),
    processes: findProcesses(`guest=volant:${installation}:`).length,
  };
}

/** Undefined where a folder went while it was looked into: the next sample is soon. */
function measureIfStill(at: StandInHouse): Measured | undefined {
  try {
    return measure(at);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

function line(elapsedMs: number, operations: number, sample: Measured): string {
  const words = Object.entries(sample).map(([name, value]) => `${name} ${value.toFixed(0)}`);
  return `${(elapsedMs / 1000).toFixed(0)} s, ${operations} operations: ${words.join(", ")}\n`;
}

/** Measures for so long, and then what is left once every VM is deleted. Runs in the caller's network namespace, which must be one of its own. */
export async function benchSoak(minutes: number): Promise<BenchResult[]> {
  // What is kept of events is bounded, and full soon, so that it does not count as growth.
  const runner = new Runner({ VOLANT_EVENTS_KEEP: "2000" });
  const started = performance.now();
  const elapsedMs = (): number => performance.now() - started;
  const uninterrupted = onInterrupt(() => runner.abandon());
  const overtime = setTimeout(
    () => void runner.abandon().finally(() => process.exit(1)),
    minutes * 60_000 + OVERTIME_MS,
  );
  const samples: Measured[] = [];
  let operations = 0;
  let timer: NodeJS.Timeout | undefined;
  try {
    const at = await runner.open();
    const takeSample = (): void => {
      const sample = runner.has(at) ? measureIfStill(at) : undefined;
      if (sample === undefined) return;
      samples.push(sample);
      process.stderr.write(line(elapsedMs(), operations, sample));
    };
    timer = setInterval(takeSample, SAMPLE_EVERY_MS);
    const extent = { clients: 8, faults: true, killsVolantd: false, misdeeds: true };
    while (elapsedMs() < minutes * 60_000) {
      const outcome = await runner.campaign({
        extent,
        mostCommands: MOST_COMMANDS,
        runs: 1,
        seed: randomInt(2 ** 31),
        shrinkWithinMs: 0,
      });
      if (outcome.failed) throw new Error(outcome.report);
      operations += outcome.operations;
    }
    clearInterval(timer);
    const left = at.leaks();
    for (const leak of left) process.stderr.write(`left behind: ${leak}\n`);
    const verdicts = samples.length < LEAST_SAMPLES ? [] : soakVerdict(samples, LIMITS);
    const done = { name: "soak: operations", unit: "", ours: [operations], target: "none: for information", ok: true };
    return [
      done,
      ...verdicts,
      { name: "soak: leaks", unit: "", ours: [left.length], target: "none", ok: left.length === 0 },
    ];
  } finally {
    clearInterval(timer);
    clearTimeout(overtime);
    uninterrupted();
    await runner.close();
  }
}
