/**
 * What starting `volar` costs: whole runs of the program as a user starts it, against an API on loopback that has 100 VMs. The rival is a Node that does nothing:
 * no program on it can be faster. `VOLANT_BENCH_VOLAR=<program>` measures a bundled volar, which has a limit.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import type { BenchResult } from "./result.ts";
import { median } from "./result.ts";

const root = join(import.meta.dirname, "..");
const VMS = 100;
/** The first runs fill the cache of compiled modules. */
const WARM_UP = 3;
const ROUNDS = 20;
/** Of a bundled volar: from a checkout, each of its files is found and loaded by itself. */
const BUNDLED_LIMIT_MS = 150;

/** The API in a thread of its own: this one waits for programs. */
const SERVER = `
  import { parentPort, workerData } from "node:worker_threads";
  const { runApi } = await import(workerData.api);
  const running = await runApi();
  for (let count = 1; count <= workerData.vms; count += 1) await running.useCases.vms.create({ name: "vm-" + count });
  parentPort.on("message", async () => { await running.api.close(); process.exit(0); });
  parentPort.postMessage(running.address);
`;

function runMs(command: string, args: readonly string[], env: NodeJS.ProcessEnv): number {
  const started = performance.now();
  const { status, stderr } = spawnSync(command, args, { env, encoding: "utf8" });
  if (status !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${status}: ${stderr}`);
  return performance.now() - started;
}

const COMMANDS: readonly (readonly string[])[] = [
  ["vms", "list"],
  ["vms", "get", "vm-1", "--output", "json"],
  ["__complete", "--", "vms", "get", "vm-1"],
  ["--version"],
];

/** Start-up of the commands that people and shells run most. */
export async function benchCli(): Promise<BenchResult[]> {
  const api = new URL("../packages/volantd/src/api/testing/running-api.ts", import.meta.url).href;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(SERVER)}`), {
    workerData: { api, vms: VMS },
  });
  const address = await new Promise<string>((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  const env = { ...process.env, VOLANT_API_BASE: address };
  const bundled = process.env["VOLANT_BENCH_VOLAR"];
  const volar = bundled ?? join(root, "bin/volar");
  const limitMs = bundled === undefined ? undefined : BUNDLED_LIMIT_MS;
  try {
    return COMMANDS.map((args) => {
      for (let count = 0; count < WARM_UP; count += 1) runMs(volar, args, env);
      const [ours, bare]: [number[], number[]] = [[], []];
      for (let round = 0; round < ROUNDS; round += 1) {
        ours.push(runMs(volar, args, env));
        bare.push(runMs(process.execPath, ["-e", ""], env));
      }
      return {
        name: `volar ${args.join(" ")}`,
        unit: "ms",
        ours,
        rival: { name: "a Node that does nothing", samples: bare },
        target: limitMs === undefined ? "none: for information, from a checkout" : `at most ${limitMs} ms`,
        ok: limitMs === undefined || median(ours) <= limitMs,
      };
    });
  } finally {
    worker.postMessage("close");
  }
}
