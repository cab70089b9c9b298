/**
 * `npm run bench`: every measurement, in a network namespace of its own; a table in Markdown. Exit code 1 when a target is missed. Words choose
 * some of them: `npm run bench -- taps policy`. `npm run bench -- scale [count…]` measures many VMs instead, and
 * `npm run bench -- soak [minutes]` one volantd that works for long; both take minutes.
 */
import { enterOwnNamespace } from "../test/namespace.ts";
import { benchApi } from "./api.ts";
import { benchBoot } from "./boot.ts";
import { benchCli } from "./cli.ts";
import { benchPolicy } from "./policy.ts";
import { benchReach } from "./reach.ts";
import { type BenchResult, resultTable } from "./result.ts";
import { benchScale } from "./scale.ts";
import { benchSetup } from "./setup.ts";
import { benchSoak } from "./soak.ts";
import { benchTaps } from "./taps.ts";

enterOwnNamespace(import.meta.url);

const MEASUREMENTS: Readonly<Record<string, () => BenchResult[] | Promise<BenchResult[]>>> = {
  taps: benchTaps,
  setup: benchSetup,
  cli: benchCli,
  api: benchApi,
  boot: benchBoot,
  reach: benchReach,
  policy: benchPolicy,
};
const COUNTS = [10, 100, 1000];
const SOAK_MINUTES = 20;
/** A day. */
const MOST_MINUTES = 1440;

function refuse(): never {
  const names = Object.keys(MEASUREMENTS).join(" | ");
  process.stderr.write(
    `volant: use npm run bench [-- ${names} …], npm run bench -- scale [count…], or npm run bench -- soak [minutes]\n`,
  );
  process.exit(2);
}

async function run(words: readonly string[]): Promise<BenchResult[]> {
  if (words[0] === "scale") {
    const counts = words.slice(1).map(Number);
    if (counts.some((count) => !Number.isSafeInteger(count) || count < 1)) refuse();
    return benchScale(counts.length === 0 ? COUNTS : counts);
  }
  if (words[0] === "soak") {
    const minutes = Number(words[1] ?? SOAK_MINUTES);
    if (words.length > 2 || !(minutes > 0 && minutes <= MOST_MINUTES)) refuse();
    return benchSoak(minutes);
  }
  if (words.some((word) => !Object.hasOwn(MEASUREMENTS, word))) refuse();
  const results: BenchResult[] = [];
  for (const [name, measure] of Object.entries(MEASUREMENTS)) {
    if (words.length === 0 || words.includes(name)) results.push(...(await measure()));
  }
  return results;
}

const results = await run(process.argv.slice(2));
process.stdout.write(`${resultTable(results)}\n`);
process.exit(results.every((result) => result.ok) ? 0 : 1);
