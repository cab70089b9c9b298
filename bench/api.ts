/**
 * volantd's API with 100 VMs, whose hypervisor is the stand-in (test/stand-in): requests per second, and how long one takes, for clients that ask as fast as they are
 * answered. The rival of the reads is a bare node:http server that answers the same bytes: no API on Node can be faster. Each round asks both, in turn.
 */
import { type ChildProcess, fork } from "node:child_process";
import { join } from "node:path";
import autocannon from "autocannon";
import { inParallel, StandInHouse } from "../test/crash/stand-in.ts";
import { eventOf } from "../test/patience.ts";
import type { CannedAnswer } from "./bare-server.ts";
import { Client } from "./client.ts";
import { onInterrupt } from "./interrupt.ts";
import { measuredPrograms } from "./programs.ts";
import { type BenchResult, percentile } from "./result.ts";

const VMS = 100;
const ROUNDS = 5;
const ROUND_S = 1;
/** Connections, each with one request under way. */
const CONNECTIONS = 10;
/** VMs that are created and deleted in a round, by so many clients. */
const PAIRS = 100;
const CLIENTS = 4;
const VOLANTD = "http://127.0.0.1:7777";
const READS: Readonly<Record<string, string>> = { "GET /vms": "/api/v1/vms", "GET /vms/{name}": "/api/v1/vms/api-0" };
/** Each server says these for itself. */
const OWN_HEADERS: readonly string[] = ["date", "connection", "keep-alive"];

/** Of one round. */
interface Speed {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

function speed(takenMs: readonly number[], spentMs: number): Speed {
  return {
    perSecond: (takenMs.length / spentMs) * 1000,
    p50Ms: percentile(takenMs, 0.5),
    p99Ms: percentile(takenMs, 0.99),
  };
}

async function measureRead(url: string, seconds = ROUND_S): Promise<Speed> {
  const takenMs: number[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<autocannon.Result>();
  const options = { url, connections: CONNECTIONS, duration: seconds };
  const attack = autocannon(options, (error: unknown, result) => (error == null ? resolve(result) : reject(error)));
  // What it sums up itself is in whole milliseconds.
  attack.on("response", (_client, _status, _bytes, responseMs) => takenMs.push(responseMs));
  const { errors, timeouts, non2xx, duration } = await promise;
  if (errors + timeouts + non2xx > 0)
    throw new Error(`${url}: ${errors} errors, ${timeouts} timeouts, ${non2xx} refusals`);
  return speed(takenMs, duration * 1000);
}

/** Each client creates a VM, and deletes it as soon as that is answered; what is timed is both together. */
async function measurePairs(client: Client, round: number): Promise<Speed> {
  const names = Array.from({ length: PAIRS }, (_none, index) => `pair-${round}-${index}`);
  const takenMs: number[] = [];
  const started = performance.now();
  await inParallel(CLIENTS, names, async (name) => {
    const asked = performance.now();
    await client.expect(201, "POST", "vms", { name, plugin: "probe", memory_mb: 96 });
    await client.expect(204, "DELETE", `vms/${name}`);
    takenMs.push(performance.now() - asked);
  });
  return speed(takenMs, performance.now() - started);
}

async function cannedAnswer(path: string): Promise<CannedAnswer> {
  const response = await fetch(`${VOLANTD}${path}`);
  const headers = [...response.headers].filter(([name]) => !OWN_HEADERS.includes(name));
  return { headers: Object.fromEntries(headers), body: await response.text() };
}

/** Starts the rival. @returns its process, which ends with this one, and its address */
async function startRival(): Promise<{ readonly rival: ChildProcess; readonly address: string }> {
  const answers: Record<string, CannedAnswer> = {};
  for (const path of Object.values(READS)) answers[path] = await cannedAnswer(path);
  const rival = fork(join(import.meta.dirname, "bare-server.ts"));
  rival.send(answers);
  const [port] = (await eventOf(rival, "message", "the bare server that listens")) as [number];
  return { rival, address: `http://127.0.0.1:${port}` };
}

async function measureReads(rivalAddress: string): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const [name, path] of Object.entries(READS)) {
    const [ours, bare]: [Speed[], Speed[]] = [[], []];
    for (const address of [VOLANTD, rivalAddress]) await measureRead(address + path);
    for (let round = 0; round < ROUNDS; round += 1) {
      ours.push(await measureRead(VOLANTD + path));
      bare.push(await measureRead(rivalAddress + path));
    }
    results.push(...rows(`API, ${VMS} VMs, ${CONNECTIONS} connections: ${name}`, ours, bare));
  }
  return results;
}

function rows(name: string, ours: readonly Speed[], bare?: readonly Speed[]): BenchResult[] {
  const row = (what: string, unit: string, part: keyof Speed): BenchResult => ({
    name: `${name}, ${what}`,
    unit,
    ours: ours.map((round) => round[part]),
    ...(bare === undefined
      ? {}
      : { rival: { name: "a bare node:http server, same bytes", samples: bare.map((round) => round[part]) } }),
    target: "none: for information",
    ok: true,
  });
  return [row("a second", "/s", "perSecond"), row("p50", "ms", "p50Ms"), row("p99", "ms", "p99Ms")];
}

/** Runs in the caller's network namespace, which must be one of its own, and leaves it as it was. */
export async function benchApi(): Promise<BenchResult[]> {
  const at = await StandInHouse.open({ VOLANT_API_RATE: "off" }, await measuredPrograms());
  const client = new Client();
  const uninterrupted = onInterrupt(() => at.abandon());
  let rival: ChildProcess | undefined;
  try {
    const names = Array.from({ length: VMS }, (_none, index) => `api-${index}`);
    await inParallel(CLIENTS, names, async (name) => {
      await client.expect(201, "POST", "vms", { name, plugin: "probe", memory_mb: 96 });
    });
    await at.until((vms) => vms.every(({ status, agent }) => status === "running" && agent.attached));
    const started = await startRival();
    rival = started.rival;
    const reads = await measureReads(started.address);
    const pairs: Speed[] = [];
    for (let round = 0; round < ROUNDS; round += 1) pairs.push(await measurePairs(client, round));
    await inParallel(VMS, names, async (name) => void (await client.expect(204, "DELETE", `vms/${name}`)));
    const leaks = at.leaks();
    for (const leak of leaks) process.stderr.write(`left behind: ${leak}\n`);
    const left = { name: "API: leaks", unit: "", ours: [leaks.length], target: "none", ok: leaks.length === 0 };
    return [...reads, ...rows(`API, ${VMS} VMs, ${CLIENTS} clients: create and delete`, pairs), left];
  } finally {
    rival?.kill();
    client.close();
    await at.close();
    uninterrupted();
  }
}
