/**
 * Taps, made and deleted by @volant/netlink and by ip(8), in a network namespace of their own:
 * (a) made, attached to a bridge, aliased and brought up; (b) two hundred deleted together and one by one.
 */
import { execFile, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Netlink } from "@volant/netlink";
import { type BenchResult, ratio, resultTable } from "./result.ts";

const RUNS = 5;
const TAPS = 200;
/** Two processes each take so long that fewer tell as much. */
const TAPS_BY_PROCESSES = 50;
const BRIDGE = "vbr0";
const INSIDE = "--measure-in-this-namespace";

const alias = (index: number) => `volant:bench:${index}`;
const name = (index: number) => `vttap-${index}`;
const tapArguments = (index: number) => ["tuntap", "add", "dev", name(index), "mode", "tap", "vnet_hdr"];
const linkArguments = (index: number) => [
  "link",
  "set",
  "dev",
  name(index),
  "master",
  BRIDGE,
  "alias",
  alias(index),
  "up",
];

/** Measures in a fresh network namespace, in a process of its own. Needs root and `ip`. Takes about 40 seconds. */
export async function benchTaps(): Promise<BenchResult[]> {
  const program = ["--net", "--", process.execPath, fileURLToPath(import.meta.url), INSIDE];
  const { stdout } = await promisify(execFile)("unshare", program, { maxBuffer: 1 << 20 });
  return JSON.parse(stdout) as BenchResult[];
}

async function measure(): Promise<BenchResult[]> {
  const nl = await Netlink.open();
  const directory = await mkdtemp(join(tmpdir(), "volant-bench-"));
  const files = { batch: join(directory, "taps.batch"), script: join(directory, "taps.sh") };
  try {
    const bridge = await nl.links.create({ name: BRIDGE, kind: "bridge", mac: "02:00:00:00:00:01", up: true });
    const commands = (count: number, prefix: string) =>
      numbers(count)
        .flatMap((index) => [tapArguments(index), linkArguments(index)])
        .map((words) => `${prefix}${words.join(" ")}\n`)
        .join("");
    await writeFile(files.batch, commands(TAPS, ""));
    // A shell starts processes faster than Node does, so this is the harder rival.
    await writeFile(files.script, `set -e\n${commands(TAPS_BY_PROCESSES, "ip ")}`);
    return await measureWith(nl, bridge.index, files);
  } finally {
    await nl.close();
    await rm(directory, { recursive: true });
  }
}

async function measureWith(
  nl: Netlink,
  bridge: number,
  files: { readonly batch: string; readonly script: string },
): Promise<BenchResult[]> {
  const create = (index: number) =>
    nl.taps.create({ name: name(index), attach: { master: bridge, alias: alias(index) } });
  const taps = () => nl.links.list({ kind: "tun", stats: false });
  const together = async (): Promise<void> => {
    await nl.links.deleteMany(await taps());
  };
  const list = (): number[] => [];
  const samples = { atOnce: list(), inTurn: list(), batch: list(), processes: list() };
  const deletes = { together: list(), oneByOne: list() };
  // The first run warms caches and is not counted.
  for (let round = 0; round <= RUNS; round++) {
    const keep = (into: number[], ms: number) => round > 0 && into.push(ms);
    keep(samples.atOnce, await msEach(TAPS, () => Promise.all(numbers(TAPS).map(create))));
    keep(deletes.together, await msEach(TAPS, together));
    keep(samples.batch, await msEach(TAPS, () => run("ip", ["-batch", files.batch])));
    await together();
    keep(
      samples.inTurn,
      await msEach(TAPS_BY_PROCESSES, async () => {
        for (const index of numbers(TAPS_BY_PROCESSES)) await create(index);
      }),
    );
    await together();
    keep(samples.processes, await msEach(TAPS_BY_PROCESSES, () => run("sh", [files.script])));
    await together();
    if (round === 0) continue;
    await Promise.all(numbers(TAPS).map(create));
    const doomed = await taps();
    keep(
      deletes.oneByOne,
      await msEach(TAPS, async () => {
        for (const tap of doomed) await nl.links.delete(tap.index);
      }),
    );
  }
  return [
    {
      name: `tap create + attach + alias + up, ${TAPS} at once`,
      unit: "ms each",
      ours: samples.atOnce,
      rival: { name: "one ip -batch", samples: samples.batch },
      target: "at most 1.5 × the batch",
      ok: ratio(samples.atOnce, samples.batch) <= 1.5,
    },
    {
      name: `the same ${TAPS} at once`,
      unit: "ms each",
      ours: samples.atOnce,
      rival: { name: "two ip processes each, from a shell", samples: samples.processes },
      target: "at most 0.25 × the processes",
      ok: ratio(samples.atOnce, samples.processes) <= 0.25,
    },
    {
      name: "the same one after another",
      unit: "ms each",
      ours: samples.inTurn,
      rival: { name: "two ip processes each, from a shell", samples: samples.processes },
      target: "none: for information",
      ok: true,
    },
    {
      name: `tap delete, ${TAPS} by a group made for them`,
      unit: "ms each",
      ours: deletes.together,
      rival: { name: "one by one", samples: deletes.oneByOne },
      target: "at most 0.05 × one by one",
      ok: ratio(deletes.together, deletes.oneByOne) <= 0.05,
    },
  ];
}

async function msEach(count: number, task: () => unknown): Promise<number> {
  const start = performance.now();
  await task();
  return (performance.now() - start) / count;
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw error ?? new Error(`${program} ${args.join(" ")}: ${stderr}`);
}

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_none, index) => index);
}

if (import.meta.main && process.argv[2] === INSIDE) process.stdout.write(JSON.stringify(await measure()));
else if (import.meta.main) process.stdout.write(`${resultTable(await benchTaps())}\n`);
