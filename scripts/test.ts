/**
 * `npm test`: everything, from quick to slow; a suite that fails does not keep the next from running. Arguments choose suites or files:
 * `npm test -- unit`, `npm test -- test/vm/first-vm.test.ts`. Some suites run on demand alone.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, globSync, mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join, relative } from "node:path";
import { spec } from "node:test/reporters";
import { run } from "node:test";
import { findLeftovers, takeInventory } from "./leftovers.ts";
import { layOutTestedPrograms } from "./tested-programs.ts";

const root = join(import.meta.dirname, "..");

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** What failed, and why: said once more at the end, where whoever has only the last lines of a long run finds it. */
const failures: string[] = [];

/** Of one failure. */
const LONGEST_REASON = 1500;

/** Why a test failed, as its own error says it. */
function reasonOf(error: Error): string {
  const { cause } = error;
  const text = cause instanceof Error ? cause.message : typeof cause === "string" ? cause : error.message;
  return text.length > LONGEST_REASON ? `${text.slice(0, LONGEST_REASON)} …` : text;
}

/** The one reason for which a test may be skipped; it must stand in the skip's message. */
const ALLOWED_SKIP = /KVM/;

/** A file that hangs fails, and does not keep the others from running. The slowest, that of the kill points, takes some 10 minutes on a quiet machine. */
const FILE_TIMEOUT_MS = 60 * 60_000;

/** A test that hangs fails, and the file's others still run and clean up. Several times what the slowest takes on a busy machine. */
const TEST_TIMEOUT_MS = 15 * 60_000;

/** Runs test files with node's runner and shows what it says. */
async function runFiles(title: string, files: readonly string[], concurrency: number, counts: Counts): Promise<void> {
  if (files.length === 0) throw new Error(`no test file for ${title}`);
  process.stdout.write(`\n== ${title}: ${files.length} files\n`);
  const stream = run({
    files: files.map((file) => join(root, file)),
    concurrency,
    cwd: root,
    timeout: FILE_TIMEOUT_MS,
    execArgv: [`--test-timeout=${TEST_TIMEOUT_MS}`],
  });
  stream.on("test:complete", ({ details, file, name }) => {
    // The report is in the files' order, and of those after one that takes long there would be nothing until it is done.
    if (concurrency > 1 && details.type !== "suite" && details.passed === false)
      process.stdout.write(`failed just now: ${relative(root, file ?? "")}: ${name}\n`);
  });
  stream.on("test:pass", (event) => {
    if (event.details.type === "suite") return;
    if (event.skip === undefined || event.skip === false) {
      counts.passed += 1;
    } else if (typeof event.skip === "string" && ALLOWED_SKIP.test(event.skip)) {
      counts.skipped += 1;
    } else {
      counts.failed += 1;
      process.stdout.write(`not allowed: "${event.name}" was skipped, and only what needs KVM may be\n`);
    }
  });
  stream.on("test:fail", (event) => {
    if (event.details.type === "suite") return;
    counts.failed += 1;
    const file = relative(root, event.file ?? "");
    failures.push(`${file}: ${event.name}: ${reasonOf(event.details.error)}`);
  });
  await new Promise<void>((resolve, reject) => {
    const report = stream.compose(spec);
    report.on("error", reject);
    report.on("end", resolve);
    report.pipe(process.stdout, { end: false });
  });
}

/** Runs a program whose exit code says it all, as one test. */
function runProgram(title: string, program: string, args: readonly string[], cwd: string, counts: Counts): void {
  process.stdout.write(`\n== ${title}\n`);
  const result = spawnSync(program, args, { cwd, stdio: "inherit" });
  if (result.error !== undefined) throw result.error;
  if (result.status === 0) {
    counts.passed += 1;
    return;
  }
  counts.failed += 1;
  failures.push(`${title}: ${result.signal ?? `exit code ${result.status}`}`);
}

const suites: Record<string, (counts: Counts) => Promise<void> | void> = {
  check: (counts) =>
    runProgram("check: types, lint, format, imports", process.execPath, ["scripts/check.ts"], root, counts),
  agent: (counts) =>
    runProgram("agent: cargo test", "cargo", ["test", "--locked", "--quiet"], join(root, "kestrel"), counts),
  "stand-in": (counts) =>
    runProgram(
      "stand-in hypervisor: cargo test",
      "cargo",
      ["test", "--locked", "--quiet"],
      join(root, "test/stand-in"),
      counts,
    ),
  unit: (counts) =>
    runFiles(
      "unit tests",
      globSync(["packages/**/*.test.ts", "test/*.test.ts", "scripts/**/*.test.ts", "bench/**/*.test.ts"], { cwd: root })
        .filter((file) => !file.includes("node_modules"))
        .sort(),
      2,
      counts,
    ),
};

/**
 * Suites of which each file has a host of its own, as far as networks go, and waits for guests, timers and the kernel for the most part of its time. So they run side by side, those of all
 * suites together.
 */
const houses: Readonly<Record<string, string>> = {
  kernel: "in network namespaces of their own",
  crash: "many VMs, under a hypervisor that stands in for QEMU",
  browser: "the SDK in a real Chromium",
  vm: "real guests",
};

/** Those that take minutes begin first, so that none of them is left over at the end. */
const SLOWEST: readonly string[] = ["test/crash/kill-points.test.ts", "test/crash/lost-intents.test.ts"];

/** A processor for each: what emulates a guest takes a whole one, and time that tests wait for passes beside. Guests take memory, a gigabyte in some files. */
const SIDE_BY_SIDE = Math.max(2, Math.min(availableParallelism(), 8));

function housesOf(names: readonly string[], counts: Counts): Promise<void> {
  const files = names.flatMap((name) => globSync(`test/${name}/**/*.test.ts`, { cwd: root }).sort());
  const slow = SLOWEST.filter((file) => files.includes(file));
  const ordered = [...slow, ...files.filter((file) => !slow.includes(file))];
  return runFiles(names.map((name) => `${name} tests: ${houses[name]}`).join("; "), ordered, SIDE_BY_SIDE, counts);
}

/** Run when they are named, and not with everything: they take minutes, and need what not every machine can bring. */
const onDemand: Record<string, (counts: Counts) => Promise<void> | void> = {
  schemathesis: (counts) =>
    runFiles(
      "schemathesis: requests made from the OpenAPI document",
      globSync("test/schemathesis/**/*.test.ts", { cwd: root }),
      1,
      counts,
    ),
};

const wanted = process.argv.slice(2);
const files = wanted.filter((word) => word.endsWith(".ts"));
const known = [...Object.keys(suites), ...Object.keys(houses), ...Object.keys(onDemand)];
const unknown = wanted.filter((word) => !files.includes(word) && !known.includes(word));
if (unknown.length > 0) {
  process.stderr.write(`volant: no suite ${unknown.join(", ")}: use ${known.join(", ")}, or a test file's path\n`);
  process.exit(2);
}

const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
const started = Date.now();
// A temporary directory of the run's own: what is still in it at the end was left behind by a test.
const scratch = mkdtempSync(join(tmpdir(), "volant-test-"));
// Open to all, as /tmp is: some tests run programs as another user.
chmodSync(scratch, 0o755);
process.env["TMPDIR"] = scratch;
const before = takeInventory(scratch);
Object.assign(process.env, await layOutTestedPrograms());
const isWanted = (name: string): boolean => wanted.includes(name) || wanted.length === 0;
for (const [name, suite] of Object.entries(suites)) if (isWanted(name)) await suite(counts);
const wantedHouses = Object.keys(houses).filter(isWanted);
if (wantedHouses.length > 0) await housesOf(wantedHouses, counts);
for (const [name, suite] of Object.entries(onDemand)) if (wanted.includes(name)) await suite(counts);
if (files.length > 0) await runFiles("chosen files", files, 1, counts);

const leftovers = findLeftovers(before, takeInventory(scratch));
for (const leftover of leftovers) process.stdout.write(`left behind: ${leftover}\n`);
if (leftovers.length > 0) counts.failed += 1;
else counts.passed += 1;
rmSync(scratch, { recursive: true, force: true });

if (failures.length > 0) process.stdout.write(`\n== what failed\n${failures.join("\n\n")}\n`);
process.stdout.write(`\nall suites: ${((Date.now() - started) / 1000).toFixed(0)} s\n`);
process.stdout.write(`total: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
process.exit(counts.failed === 0 ? 0 : 1);
