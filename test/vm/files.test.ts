/** Files into and out of real guests, and what their workloads print. */
import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { buffer, text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { VolantClient } from "@volant/sdk";
import { enterOwnNamespace } from "../namespace.ts";
import { PATIENCE_MS, fetchInTime, within } from "../patience.ts";
import { type House, openHouse, testedPrograms } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const base = "http://127.0.0.1:7777";
const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const MIB = 1024 * 1024;
let house: House;
let here: string;

before(async () => {
  house = await openHouse();
  here = join(house.directory, "here");
  mkdirSync(here);
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  // It prints a line that would clear the screen, and one for each request.
  const command = "echo started; printf '\\033[2Jclear\\n'; exec /bin/busybox httpd -f -v -p 80 -h /www";
  const manifest = buildProbePlugin(directory, {
    workload: { type: "http", base_url: "http://127.0.0.1:80", entrypoint: ["/bin/sh", "-c", command] },
  });
  await house.volarDone("plugins", "install", manifest);
  await house.volarDone(
    "vms",
    "create",
    "remote",
    "--plugin",
    "probe",
    "--network",
    "vsock",
    "--memory",
    "640",
    "--wait",
  );
  await house.volarDone("vms", "create", "local", "--plugin", "probe", "--wait");
});
after(() => house?.close());

interface Ended {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

function start(...args: string[]): ChildProcess {
  return spawn(join(testedPrograms, "volar"), args, {
    cwd: here,
    env: house.environment,
    stdio: ["pipe", "pipe", "pipe"],
  });
}

async function volar(args: readonly string[], input: Uint8Array = Buffer.alloc(0)): Promise<Ended> {
  const child = start(...args);
  child.stdin?.on("error", () => {}).end(input);
  assert.ok(child.stdout !== null && child.stderr !== null);
  const closed = once(child, "close");
  const all = Promise.all([buffer(child.stdout), text(child.stderr), closed]);
  const [stdout, stderr, [code]] = await within(all, `the end of volar ${args.join(" ")}`, undefined, 2 * PATIENCE_MS);
  return { code, stdout, stderr };
}

const cp = (from: string, to: string, input?: Uint8Array) => volar(["vms", "cp", from, to], input);

async function copied(from: string, to: string, input?: Uint8Array): Promise<Ended> {
  const ended = await cp(from, to, input);
  assert.deepEqual([ended.code, ended.stderr], [0, ""]);
  return ended;
}

/** What a shell in a guest prints; it must succeed. */
async function sh(vm: string, script: string): Promise<string> {
  const { code, stdout, stderr } = await volar(["vms", "exec", vm, "--", "sh", "-c", `set -e; ${script}`]);
  assert.equal(code, 0, stderr);
  return stdout.toString();
}

for (const vm of ["remote", "local"]) {
  test(`a tree goes into ${vm} and out of it as it is, and belongs to root there`, async () => {
    const tree = join(here, `tree-${vm}`);
    mkdirSync(join(tree, "deep/er"), { recursive: true });
    writeFileSync(join(tree, "deep/er/file"), randomBytes(300_000), { mode: 0o640 });
    writeFileSync(join(tree, "run"), "#!/bin/sh\necho ran\n", { mode: 0o750 });
    writeFileSync(join(tree, `${"long ".repeat(40)}\n\u001b[31m`), "odd");
    symlinkSync("deep/er/file", join(tree, "link"));
    await copied(`tree-${vm}`, `${vm}:/srv`);
    await copied(`tree-${vm}`, `${vm}:/www/`);
    assert.equal(await sh(vm, "/srv/run"), "ran\n");
    const shown = await sh(vm, `busybox stat -c '%a %u:%g' /srv/run /srv/deep/er/file /www/tree-${vm}/run`);
    assert.deepEqual(shown.trim().split("\n"), ["750 0:0", "640 0:0", "750 0:0"]);
    await copied(`${vm}:/srv`, `back-${vm}`);
    execFileSync("diff", ["-r", "--no-dereference", tree, join(here, `back-${vm}`)]);
  });
}

test("100 MiB go both ways, byte for byte", async () => {
  const large = randomBytes(100 * MIB);
  writeFileSync(join(here, "large"), large);
  const startedAt = performance.now();
  await copied("large", "remote:/large");
  const inAt = performance.now();
  await copied("remote:/large", "large-back");
  const outAt = performance.now();
  assert.equal(digest(readFileSync(join(here, "large-back"))), digest(large));
  assert.match(
    await sh("remote", "busybox sha256sum /large; rm -f /large || busybox rm /large"),
    new RegExp(`^${digest(large)} `),
  );
  const peak = (await sh("remote", "busybox grep VmHWM /proc/1/status")).split(/\s+/)[1];
  const rate = (fromMs: number, toMs: number) => `${((100 * 1000) / (toMs - fromMs)).toFixed(1)} MiB/s`;
  process.stderr.write(
    `100 MiB in: ${rate(startedAt, inAt)}, out: ${rate(inAt, outAt)}; the agent's peak: ${peak} KiB\n`,
  );
});

test("standard input becomes a file, and a file goes to standard output, one of /proc too", async () => {
  const bytes = randomBytes(MIB);
  await copied("-", "remote:/piped", bytes);
  assert.equal(digest((await cp("remote:/piped", "-")).stdout), digest(bytes));
  assert.match((await cp("local:/proc/version", "-")).stdout.toString(), /^Linux version/);
});

test("a guest that is full says so, keeps the old file and no part of the new one", async () => {
  await sh("remote", "busybox mkdir /small; busybox mount -t tmpfs -o size=1m tmpfs /small; echo old > /small/old");
  writeFileSync(join(here, "four"), randomBytes(4 * MIB));
  for (const [from, input] of [
    ["four", undefined],
    ["-", randomBytes(4 * MIB)],
  ] as const) {
    const full = await cp(from, "remote:/small/old", input);
    assert.deepEqual([full.code, full.stdout.length], [1, 0]);
    assert.match(full.stderr, /^volar: no space is left in the guest for \/small\/old/);
    assert.equal(await sh("remote", "busybox ls -A /small; busybox cat /small/old"), "old\nold\n");
  }
});

test("a copy that is broken off leaves the old file, and nothing else", async () => {
  await sh("remote", "busybox mkdir /halves; echo old > /halves/file");
  const child = start("vms", "cp", "-", "remote:/halves/file");
  child.stdin?.on("error", () => {}).write(randomBytes(2 * MIB));
  await sh("remote", "until busybox ls -A /halves | busybox grep -q volant; do busybox usleep 50000; done");
  const closed = once(child, "close");
  child.kill("SIGKILL");
  await within(closed, "the end of a killed volar");
  await sh("remote", "while busybox ls -A /halves | busybox grep -q volant; do busybox usleep 50000; done");
  assert.equal(await sh("remote", "busybox ls -A /halves; busybox cat /halves/file"), "file\nold\n");
});

test("what a guest must not bring over stays there, and that is said", async () => {
  await sh(
    "local",
    "busybox mkdir /evil; busybox ln -s /etc/shadow /evil/shadow; busybox ln -s ../../../up /evil/up; busybox mkfifo /evil/pipe; echo fine > /evil/fine; busybox chmod 6755 /evil/fine",
  );
  const { code, stderr } = await cp("local:/evil", ".");
  assert.equal(code, 0, stderr);
  assert.match(stderr, /shadow, a link to \/etc\/shadow, which lies outside of the copy/);
  assert.match(stderr, /1 in the guest that are no files/);
  assert.deepEqual(readdirSync(join(here, "evil")), ["fine"]);
  assert.equal(execFileSync("stat", ["-c", "%a", join(here, "evil/fine")], { encoding: "utf8" }).trim(), "755");
});

test("what can't be copied is said in a sentence, with an exit code", async () => {
  const refused = async (from: string, to: string, code: number, sentence: RegExp) => {
    const ended = await cp(from, to);
    assert.match(ended.stderr, sentence);
    assert.equal(ended.code, code);
  };
  await refused("remote:/none", ".", 1, /the guest has no file or directory \/none/);
  await refused("remote:/www", "-", 1, /\/www is a directory in the guest/);
  await refused("four", "remote:/none/x", 1, /the guest has no directory \/none/);
  await refused("-", "remote:/www", 1, /\/www is a directory in the guest/);
  await refused("four", "remote:/proc/version/x", 1, /no directory|leads through a file/);
  await refused("remote:/dev/null", ".", 1, /neither a file nor a directory/);
  await refused("four", "copy", 2, /neither side is in a guest/);
});

/** Follows a log; `shows` resolves when what was printed so far fits. */
function follow(vm: string): {
  readonly child: ChildProcess;
  printed(): string;
  shows(pattern: RegExp): Promise<void>;
} {
  const child = start("vms", "logs", "-f", vm);
  let printed = "";
  let look = () => {};
  child.stdout?.setEncoding("utf8").on("data", (part: string) => {
    printed += part;
    look();
  });
  const shows = (pattern: RegExp) =>
    within(
      new Promise<void>((resolve, reject) => {
        look = () => void (pattern.test(printed) && resolve());
        look();
        child.once("close", () => reject(new Error(`volar ended, having printed: ${printed}`)));
      }),
      `a log of ${vm} that shows ${String(pattern)}`,
      () => printed,
    );
  return { child, printed: () => printed, shows };
}

test("logs -f goes on through restarts of the VM and of volantd, each line once", async () => {
  const log = follow("local");
  await log.shows(/^started$/m);
  await log.shows(/^\\u001b\[2Jclear$/m);
  await house.volarDone("vms", "restart", "local", "--wait");
  await log.shows(/^started$[^]*^started$/m);
  await house.stopVolantd("SIGKILL");
  await house.startVolantd();
  await house.volarDone("vms", "wait", "local");
  const page = `/found-${randomBytes(4).toString("hex")}`;
  // Its answer is 404, which httpd prints.
  await fetchInTime(`${base}/api/v1/vms/local/agent${page}`);
  await log.shows(/response:404$/m);
  assert.equal(log.printed().match(/^started$/gm)?.length, 2);
  log.child.kill();
});

test("the log is there over WebSocket and among the events", async () => {
  const socket = new WebSocket(`${base.replace("http", "ws")}/ws/v1/vms/remote/logs`);
  const first = new Promise<MessageEvent>((resolve, reject) => {
    socket.addEventListener("message", resolve, { once: true });
    socket.addEventListener("error", () => reject(new Error("the WebSocket failed")), { once: true });
  });
  const message = await within(first, "the first line by WebSocket", () => `ready state ${socket.readyState}`);
  const { name, stream, timestamp } = JSON.parse(String(message.data)) as Record<string, string>;
  assert.deepEqual([name, ["stdout", "stderr", "agent"].includes(stream ?? "")], ["remote", true]);
  assert.match(timestamp ?? "", /^\d{4}-\d\d-\d\dT/);
  socket.close();
  const ending = new AbortController();
  const events = new VolantClient({ baseUrl: base }).events({ signal: ending.signal, afterId: 0 });
  for await (const event of events) {
    if (event.type !== "VM_LOG" || event.name !== "local") continue;
    assert.ok(event.line !== undefined && event.stream !== undefined);
    break;
  }
  ending.abort();
});

test("the log of a stopped VM can be read, and its files can't be copied", async () => {
  await house.volarDone("vms", "stop", "local");
  assert.match(await house.volarDone("vms", "logs", "local"), /^started$/m);
  assert.equal((await house.volarDone("vms", "logs", "local", "--tail", "1")).trim().split("\n").length, 1);
  const { code, stderr } = await cp("local:/www", ".");
  assert.deepEqual([code, /VM "local" is stopped/.test(stderr)], [1, true], stderr);
  const deleted = follow("local");
  const said = text(deleted.child.stderr as NonNullable<typeof deleted.child.stderr>);
  const ended = once(deleted.child, "close");
  await deleted.shows(/started/);
  await house.volarDone("vms", "delete", "local");
  await within(ended, "the end of the log of a deleted VM", () => deleted.printed());
  assert.match(await said, /VM "local" was deleted/);
});
