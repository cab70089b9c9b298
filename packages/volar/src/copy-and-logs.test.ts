/** `volar vms cp` and `volar vms logs` as a user runs them: child processes against a real API over loopback. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { encodeTarEntry, TAR_END } from "../../sdk/src/node/tar/header.ts";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";

const entry = join(import.meta.dirname, "main.ts");
const timestamp = "2026-01-01T00:00:00.000Z";
let running: RunningApi;
let directory: string;

before(async () => {
  running = await runApi({ apiKey: "k" });
  await running.useCases.vms.create({ name: "web" });
  directory = mkdtempSync(join(tmpdir(), "volar-copy-"));
});
after(async () => {
  rmSync(directory, { recursive: true });
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

interface Finished {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

async function volar(args: readonly string[], input: Uint8Array = Buffer.alloc(0)): Promise<Finished> {
  const child = spawn(process.execPath, [entry, ...args], {
    env: { PATH: process.env["PATH"], VOLANT_API_BASE: running.address, VOLANT_API_KEY: "k" },
    cwd: directory,
  });
  child.stdin.on("error", () => undefined).end(input);
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  const [stdout, stderr] = await Promise.all([buffer(child.stdout), text(child.stderr)]);
  return { code: await closed, stdout, stderr };
}

const cp = (from: string, to: string, input?: Uint8Array) => volar(["vms", "cp", from, to], input);

function assertRefused({ code, stdout, stderr }: Finished, expected: number, sentence: RegExp): void {
  assert.match(stderr, sentence);
  assert.match(stderr, /^volar: /);
  assert.deepEqual([code, stdout.length], [expected, 0]);
}

test("a folder goes in and comes out again, and the copy is said", async () => {
  mkdirSync(join(directory, "tree/deep"), { recursive: true });
  writeFileSync(join(directory, "tree/deep/file"), Buffer.alloc(3_000_000, 1), { mode: 0o640 });
  symlinkSync("deep/file", join(directory, "tree/link"));
  const inwards = await cp("tree", "web:/srv");
  assert.deepEqual([inwards.code, inwards.stderr], [0, ""]);
  assert.match(inwards.stdout.toString(), /^tree copied to web:\/srv: /);
  const outwards = await volar(["vms", "cp", "web:/srv", ".", "--output", "json"]);
  assert.deepEqual(JSON.parse(outwards.stdout.toString()), {
    from: "web:/srv",
    to: ".",
    files: 2,
    bytes: 3_000_000,
    left_out: [],
  });
  execFileSync("diff", ["-r", "--no-dereference", "tree", "srv"], { cwd: directory });
});

test("- is standard input and output, for one file", async () => {
  const bytes = Buffer.from([0, 255, 10, 13]);
  assert.equal((await cp("-", "web:/raw", bytes)).code, 0);
  assert.deepEqual(running.guestFiles.get("/raw"), bytes);
  writeFileSync(join(directory, "binary"), bytes);
  await cp("binary", "web:/one");
  assert.deepEqual((await cp("web:/one", "-")).stdout, bytes);
  assertRefused(await cp("web:/srv", "-"), 1, /\/srv is a directory in the guest/);
});

test("what can't be copied is said in a sentence, with an exit code", async () => {
  assertRefused(await cp("tree", "there"), 2, /neither side is in a guest/);
  assertRefused(await cp("web:/a", "web:/b"), 2, /both sides are in guests/);
  assertRefused(await cp("tree", "web:"), 2, /names no path/);
  assertRefused(await cp("absent", "web:/a"), 1, /absent: there is no such file/);
  assertRefused(await cp("web:/absent", "."), 1, /has no file or directory \/absent/);
  assertRefused(await cp("web:/srv", "nowhere/x"), 1, /nowhere: there is no such directory/);
  assertRefused(await cp("none:/a", "."), 1, /no VM/);
  assert.equal((await volar(["vms", "cp", "tree"])).code, 2);
});

test("a guest that refuses early is heard, though much is still to be sent", async () => {
  writeFileSync(join(directory, "large"), Buffer.alloc(20_000_000));
  assertRefused(await cp("large", "web:/full"), 1, /no space is left in the guest/);
});

test("what a hostile guest sends is left out and said, and can't drive the terminal", async () => {
  const evil = "t/\u001b[2J";
  const parts = ["/etc/shadow", "../../up"].map((target, index) =>
    encodeTarEntry({ name: `${evil}${index}`, kind: "symlink", mode: 0o777, mtime: 0, size: 0, target }),
  );
  const top = encodeTarEntry({ name: "t", kind: "directory", mode: 0o755, mtime: 0, size: 0, target: "" });
  running.guestFiles.set("/evil", Buffer.concat([top, ...parts, TAR_END]));
  const { code, stderr } = await cp("web:/evil", ".");
  assert.equal(code, 0);
  assert.equal(stderr.trim().split("\n").length, 2, stderr);
  assert.ok(!stderr.includes("\u001b"), stderr);
  assert.deepEqual(readdirSync(join(directory, "evil")), []);
  const outside = encodeTarEntry({ name: "t/../../x", kind: "file", mode: 0o644, mtime: 0, size: 0, target: "" });
  running.guestFiles.set("/worse", Buffer.concat([outside, TAR_END]));
  assertRefused(await cp("web:/worse", "."), 1, /leads elsewhere/);
});

test("an old file is as it was when its copy is cut", async () => {
  writeFileSync(join(directory, "kept"), "old");
  const cut = encodeTarEntry({ name: "x", kind: "file", mode: 0o644, mtime: 0, size: 1_000_000, target: "" });
  running.guestFiles.set("/cut", Buffer.concat([cut, Buffer.alloc(5000)]));
  assertRefused(await cp("web:/cut", "kept"), 1, /ends in the middle/);
  assert.equal(readFileSync(join(directory, "kept"), "utf8"), "old");
  assert.ok(readdirSync(directory).every((name) => !name.startsWith(".")));
});

test("a copy that is interrupted takes its half away, and leaves the old file", async (context) => {
  const folder = join(directory, "interrupted");
  mkdirSync(folder);
  writeFileSync(join(folder, "kept"), "old");
  context.mock.method(running.useCases.files, "read", async () =>
    Readable.from(
      (async function* () {
        yield encodeTarEntry({ name: "x", kind: "file", mode: 0o644, mtime: 0, size: 1_000_000, target: "" });
        yield Buffer.alloc(5000);
        await new Promise(() => {});
      })(),
    ),
  );
  const child = spawn(
    process.execPath,
    [entry, "--api", running.address, "--api-key", "k", "vms", "cp", "web:/x", "kept"],
    {
      cwd: folder,
    },
  );
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  while (readdirSync(folder).length < 2) await new Promise(setImmediate);
  child.kill("SIGINT");
  assert.deepEqual(
    [await closed, readdirSync(folder), readFileSync(join(folder, "kept"), "utf8")],
    [130, ["kept"], "old"],
  );
  context.mock.restoreAll();
});

test("logs are printed as they were written, remarks with who made them, and escape codes shown", async () => {
  running.logLines.push(
    { name: "web", stream: "stdout", line: "a\tb\u001b[31m", timestamp },
    { name: "web", stream: "agent", line: "the workload ended", timestamp },
  );
  const logs = async (...flags: string[]) => (await volar(["vms", "logs", "web", ...flags])).stdout.toString();
  assert.equal(await logs(), "a\tb\\x1b[31m\n[agent] the workload ended\n");
  assert.equal(await logs("--tail", "1", "-t"), `${timestamp} [agent] the workload ended\n`);
  assert.deepEqual(JSON.parse(await logs("--tail=1", "--output", "json")), running.logLines[1]);
  assertRefused(await volar(["vms", "logs", "none"]), 1, /no VM/);
  assert.equal((await volar(["vms", "logs", "web", "--tail", "x"])).code, 2);
});

test("logs -f connects again where it was, after volantd was away", async () => {
  const own = await runApi();
  await own.useCases.vms.create({ name: "web" });
  const port = new URL(own.address).port;
  own.logLines.push({ name: "web", stream: "stdout", line: "one", timestamp });
  const child = spawn(process.execPath, [entry, "--api", own.address, "vms", "logs", "-f", "web"]);
  let printed = "";
  let look = () => {};
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    printed += part;
    look();
  });
  const shows = (wanted: string) =>
    new Promise<void>((resolve) => {
      look = () => void (printed === wanted && resolve());
      look();
    });
  await shows("one\n");
  await own.api.close();
  const next = await runApi({ listenPort: Number(port) });
  await next.useCases.vms.create({ name: "web" });
  for (const line of ["one", "two"]) next.logLines.push({ name: "web", stream: "stdout", line, timestamp });
  await shows("one\ntwo\n");
  child.kill();
  await next.api.close();
});
