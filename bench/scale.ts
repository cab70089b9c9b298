/**
 * `npm run bench -- scale [count…]`: volantd with many VMs, whose hypervisor is the stand-in (test/stand-in): all else is real (netlink, store, processes). For
 * each count, in a house of its own: all are created, listed, found again by a volantd that was killed and started, and deleted. The runtime folder is on a tmpfs,
 * as docs/operations.md has it: on ext4 a new file, folder or socket costs more the more of them were removed of late.
 */
import { mkdtempSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Vm } from "@volant/contract";
import { inParallel, StandInHouse } from "../test/crash/stand-in.ts";
import { Client } from "./client.ts";
import { onInterrupt } from "./interrupt.ts";
import { measuredPrograms } from "./programs.ts";
import { type BenchResult, percentile } from "./result.ts";

/** Clients that create at the same time. */
const CLIENTS = 16;
/** Deletes under way at once: each is answered only when nothing of its VM is left. */
const DELETES = 500;
const LISTS = 200;
const LIMIT_MS = 600_000;
/** What work has left over is given back within so long (packages/volantd/src/memory). */
const REST_MS = 30_000;
const REST_SAMPLES = 5;
/** 150 MB. */
const TARGET_RESIDENT_MIB = 143;
/** Issued against 1,000 VMs, and shown for every other count. */
const TARGET_COUNT = 1000;
/** Where a runtime folder belongs, as /run on a host: the first of these that is a tmpfs. Store and logs stay on the disk. */
const TMPFS_FOLDERS = ["/run", "/dev/shm"] as const;
/** TMPFS_MAGIC (statfs(2)). */
const TMPFS = 0x01021994;
/** A start has a target for half as many, too. */
const START_COUNT = 500;

interface ScaleFigures {
  readonly count: number;
  /** From the first request until the last VM runs, for each VM. */
  readonly createMs: number;
  /** Until a create was answered: what it asks for is durable then. */
  readonly acceptedMs: readonly number[];
  readonly listMs: readonly number[];
  readonly listBytes: number;
  /** From the start of the next volantd until its API answers. */
  readonly answersMs: number;
  /** Until each VM is running again with its agent attached. */
  readonly attachedMs: number;
  readonly deleteMs: number;
  /** Of volantd alone, for each VM: what a busy machine changes less than the time on the clock. */
  readonly createCpuMs: number;
  readonly deleteCpuMs: number;
  /** From the start of the next volantd until each agent is attached, as it is listed meanwhile. */
  readonly adoptCpuMs: number;
  /** Once there is nothing to do any more, of both processes. */
  readonly restMib: readonly number[];
  /** The most at any time: of the process that creates and lists; of its successor that finds all again and lists them; and of that one once it has deleted all, too. */
  readonly createPeakMib: number;
  readonly adoptPeakMib: number;
  readonly deletePeakMib: number;
  readonly standInMib: number;
  /** Of each hypervisor, from its process's start: what shares the processors with volantd while VMs are created. */
  readonly standInCpuMs: number;
  readonly leaks: readonly string[];
}

const sinceMs = (started: number): number => performance.now() - started;

/** Resident, once what the work before has left over is given back. */
async function measureRest(pid: number): Promise<number[]> {
  await sleep(REST_MS);
  const samples: number[] = [];
  for (let sample = 0; sample < REST_SAMPLES; sample += 1) {
    await sleep(1000);
    samples.push(memoryMib(pid, "status", "VmRSS"));
  }
  return samples;
}

function memoryMib(pid: number, file: "status" | "smaps_rollup", field: string): number {
  const text = readFileSync(`/proc/${pid}/${file}`, "utf8");
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]) / 1024;
}

/** Processor time that a process has used, user and system: fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms. */
function processorMs(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[14 - 3]) + Number(fields[15 - 3])) * 10;
}

/** The same to the nanosecond, for a process of one thread that has used less than a tick (Documentation/scheduler/sched-stats.rst). */
function runMs(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/schedstat`, "latin1").split(" ")[0]) / 1e6;
}

/** Resolves once volantd says that so many VMs have come to be `running`. */
async function untilRunning(count: number, ready: () => void): Promise<void> {
  const signal = AbortSignal.timeout(LIMIT_MS);
  const response = await fetch("http://127.0.0.1:7777/api/v1/events/vms", { signal });
  ready();
  let seen = 0;
  let rest = "";
  for await (const chunk of (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    seen += lines.filter((line) => line.startsWith("data: ") && line.includes('"VM_RUNNING"')).length;
    if (seen >= count) return;
  }
  throw new Error("the stream of events ended");
}

async function measureCreate(client: Client, names: readonly string[]): Promise<{ ms: number; accepted: number[] }> {
  const listening = Promise.withResolvers<void>();
  const running = untilRunning(names.length, listening.resolve);
  await Promise.race([listening.promise, running]);
  const accepted: number[] = [];
  const started = performance.now();
  await inParallel(CLIENTS, names, async (name) => {
    const asked = performance.now();
    await client.expect(201, "POST", "vms", { name, plugin: "probe", memory_mb: 96 });
    accepted.push(sinceMs(asked));
  });
  await running;
  return { ms: sinceMs(started) / names.length, accepted };
}

async function measureRestart(at: StandInHouse, client: Client): Promise<{ answersMs: number; attachedMs: number }> {
  await at.house.stopVolantd("SIGKILL");
  const started = performance.now();
  await at.house.startVolantd();
  await client.expect(200, "GET", "vms?limit=1");
  const answersMs = sinceMs(started);
  const isBack = ({ status, agent }: Vm): boolean => status === "running" && agent.attached;
  // Events do not tell of an agent that is attached again: nothing about the VM has changed for a user.
  while (!(JSON.parse(await client.expect(200, "GET", "vms")) as Vm[]).every(isBack)) {
    if (sinceMs(started) > LIMIT_MS) throw new Error(`not every agent was attached again within ${LIMIT_MS} ms`);
  }
  return { answersMs, attachedMs: sinceMs(started) };
}

/** A folder for what ends with the VMs, in memory. @throws Error where the host has no tmpfs, which would be another measurement */
function runtimeFolder(): string {
  const parent = TMPFS_FOLDERS.find((folder) => statfsSync(folder).type === TMPFS);
  if (parent === undefined) throw new Error(`none of ${TMPFS_FOLDERS.join(", ")} is a tmpfs`);
  return mkdtempSync(join(parent, "volant-scale-"));
}

/** Runs in the caller's network namespace, which must be one of its own, and leaves it as it was. */
async function measure(count: number, env: Readonly<Record<string, string>>): Promise<ScaleFigures> {
  const runtime = runtimeFolder();
  const removeRuntime = (): void => rmSync(runtime, { recursive: true, force: true });
  let at: StandInHouse;
  try {
    at = await StandInHouse.open({ VOLANT_RUNTIME_DIR: runtime, ...env }, await measuredPrograms());
  } catch (error) {
    removeRuntime();
    throw error;
  }
  const client = new Client();
  const names = Array.from({ length: count }, (_none, index) => `scale-${index}`);
  const uninterrupted = onInterrupt(() => at.abandon().finally(removeRuntime));
  try {
    const idleCpuMs = processorMs(at.house.volantdPid);
    const created = await measureCreate(client, names);
    const createCpuMs = (processorMs(at.house.volantdPid) - idleCpuMs) / count;
    process.stderr.write(`${count} VMs: created, ${created.ms.toFixed(1)} ms each\n`);
    const made = JSON.parse(await client.expect(200, "GET", "vms")) as Vm[];
    const standInCpuMs = made.reduce((sum, { pid }) => sum + runMs(pid ?? 0), 0) / count;
    const standInMib = memoryMib(made[0]?.pid ?? 0, "status", "VmRSS");
    const listMs: number[] = [];
    let listBytes = 0;
    for (let round = 0; round < LISTS; round += 1) {
      const asked = performance.now();
      listBytes = (await client.expect(200, "GET", "vms")).length;
      listMs.push(sinceMs(asked));
    }
    const createPeakMib = memoryMib(at.house.volantdPid, "status", "VmHWM");
    const restMib = await measureRest(at.house.volantdPid);
    const restarted = await measureRestart(at, client);
    const adoptCpuMs = processorMs(at.house.volantdPid);
    process.stderr.write(`${count} VMs: adopted, ${restarted.answersMs.toFixed(0)} ms\n`);
    for (let round = 0; round < REST_SAMPLES; round += 1) await client.expect(200, "GET", "vms");
    const adoptPeakMib = memoryMib(at.house.volantdPid, "status", "VmHWM");
    restMib.push(...(await measureRest(at.house.volantdPid)));
    const undeletedCpuMs = processorMs(at.house.volantdPid);
    const deleting = performance.now();
    await inParallel(DELETES, names, async (name) => void (await client.expect(204, "DELETE", `vms/${name}`)));
    const deleteMs = sinceMs(deleting);
    const deletePeakMib = memoryMib(at.house.volantdPid, "status", "VmHWM");
    const deleteCpuMs = (processorMs(at.house.volantdPid) - undeletedCpuMs) / count;
    process.stderr.write(`${count} VMs: deleted, ${deleteMs.toFixed(0)} ms\n`);
    const { ms: createMs, accepted: acceptedMs } = created;
    return {
      count,
      createMs,
      acceptedMs,
      listMs,
      listBytes,
      ...restarted,
      deleteMs,
      createCpuMs,
      adoptCpuMs,
      deleteCpuMs,
      restMib,
      createPeakMib,
      adoptPeakMib,
      deletePeakMib,
      standInMib,
      standInCpuMs,
      leaks: at.leaks(),
    };
  } finally {
    client.close();
    await at.close().finally(removeRuntime);
    uninterrupted();
  }
}

function results(figures: ScaleFigures): BenchResult[] {
  const { count } = figures;
  const isTarget = count === TARGET_COUNT;
  const row = (name: string, unit: string, ours: readonly number[], most: number, words: string): BenchResult => ({
    name: `${count.toLocaleString("en")} VMs: ${name}`,
    unit,
    ours,
    target: isTarget ? words : "none: for the growth",
    ok: !isTarget || ours.every((sample) => sample <= most),
  });
  const free = (name: string, unit: string, ours: readonly number[]): BenchResult => ({
    ...row(name, unit, ours, Infinity, ""),
    target: "none: for information",
  });
  const resident = (when: string, ours: readonly number[]): BenchResult =>
    row(`volantd resident, ${when}`, "MiB", ours, TARGET_RESIDENT_MIB, "at most 150 MB, which are 143 MiB");
  return [
    row("create to running", "ms each", [figures.createMs], 10, "at most 10 ms each"),
    free("create, volantd's processor time", "ms each", [figures.createCpuMs]),
    free("create, a stand-in's processor time", "ms each", [figures.standInCpuMs]),
    free(`create answered, p50, ${CLIENTS} clients`, "ms", [percentile(figures.acceptedMs, 0.5)]),
    free("create answered, p99", "ms", [percentile(figures.acceptedMs, 0.99)]),
    free("GET /vms, p50", "ms", [percentile(figures.listMs, 0.5)]),
    row("GET /vms, p99", "ms", [percentile(figures.listMs, 0.99)], 25, "at most 25 ms"),
    free("GET /vms, body", "KiB", [figures.listBytes / 1024]),
    {
      ...row("killed volantd's successor answers", "ms", [figures.answersMs], 3000, "at most 3 s"),
      ...(count === START_COUNT ? { target: "at most 2 s", ok: figures.answersMs <= 2000 } : {}),
    },
    free("… and every agent is attached", "ms", [figures.attachedMs]),
    free("… and its processor time until then", "ms", [figures.adoptCpuMs]),
    row("delete all", "ms", [figures.deleteMs], 5000, "at most 5 s"),
    free("delete, volantd's processor time", "ms each", [figures.deleteCpuMs]),
    resident("at rest", figures.restMib),
    resident("at most while it creates all", [figures.createPeakMib]),
    resident("at most while it finds all again", [figures.adoptPeakMib]),
    resident("at most, until all are deleted", [figures.deletePeakMib]),
    free("a stand-in resident", "MiB", [figures.standInMib]),
    { ...row("leaks", "", [figures.leaks.length], 0, "none"), target: "none", ok: figures.leaks.length === 0 },
  ];
}

/**
 * The measurements for each count, smallest first.
 *
 * @param env added to volantd's environment, such as NODE_OPTIONS=--cpu-prof
 */
export async function benchScale(
  counts: readonly number[],
  env: Readonly<Record<string, string>> = {},
): Promise<BenchResult[]> {
  const all: BenchResult[] = [];
  for (const count of counts) {
    const figures = await measure(count, env);
    for (const leak of figures.leaks) process.stderr.write(`left behind: ${leak}\n`);
    all.push(...results(figures));
  }
  return all;
}
