/** How long `volar setup --dry-run` takes to say what it would do, against a bare Node and against the programs that a person would look at the host with. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../test/vm/house.ts";
import type { BenchResult } from "./result.ts";

const ROUNDS = 9;
const BY_HAND =
  "ip -j link && ip -j address && ip -j route show table all && iptables-save && sysctl net.ipv4.ip_forward";

function runMs(program: string, args: readonly string[]): number {
  const started = performance.now();
  const { status, stderr, error } = spawnSync(program, args, { encoding: "utf8" });
  if (status !== 0) throw error ?? new Error(`${program} ${args.join(" ")}: ${stderr}`);
  return performance.now() - started;
}

/** Runs in the caller's network namespace, which must be one of its own and not set up. Changes nothing. */
export function benchSetup(): BenchResult[] {
  const directory = mkdtempSync(join(tmpdir(), "volant-bench-"));
  const samples = { ours: [] as number[], node: [] as number[], byHand: [] as number[] };
  try {
    // The first round warms caches and is not counted.
    for (let round = 0; round <= ROUNDS; round += 1) {
      const keep = (into: number[], ms: number) => round > 0 && into.push(ms);
      keep(samples.ours, runMs(join(root, "bin/volar"), ["setup", "--dry-run", "--work-dir", directory]));
      keep(samples.node, runMs(process.execPath, ["--eval", "0"]));
      keep(samples.byHand, runMs("sh", ["-c", BY_HAND]));
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  const name = "volar setup --dry-run";
  const common = { unit: "ms", ours: samples.ours, target: "none: for information", ok: true } as const;
  return [
    { ...common, name, rival: { name: "a bare Node that does nothing", samples: samples.node } },
    {
      ...common,
      name: "the same",
      rival: { name: "ip, iptables-save and sysctl from a shell", samples: samples.byHand },
    },
  ];
}
