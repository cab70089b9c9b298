/** Reaching into a guest that has no network at all: everything goes through its agent. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { buffer, text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { GuestStreams } from "@volant/sdk/node";
import { enterOwnNamespace, ipJson } from "../namespace.ts";
import { type House, openHouse, root } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const base = "http://127.0.0.1:7777";
const agentPath = `${base}/api/v1/vms/remote/agent`;
const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
let house: House;

before(async () => {
  house = await openHouse();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
});
after(() => house?.close());

interface Ended {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

function volar(...args: string[]): ChildProcess {
  return spawn(join(root, "bin/volar"), args, { env: house.environment, stdio: ["pipe", "pipe", "pipe"] });
}

/** Runs `volar vms exec remote -- …` to its end. */
async function exec(
  command: readonly string[],
  input: Uint8Array = Buffer.alloc(0),
  flags: string[] = [],
): Promise<Ended> {
  const child = volar("vms", "exec", ...flags, "remote", "--", ...command);
  child.stdin?.on("error", () => {}).end(input);
  assert.ok(child.stdout !== null && child.stderr !== null);
  const closed = once(child, "close");
  const [stdout, stderr] = await Promise.all([buffer(child.stdout), text(child.stderr)]);
  const [code] = (await closed) as [number | null];
  return { code, stdout, stderr };
}

/** Starts `volar vms forward` from a free port, and says which one that is. */
async function forward(
  guestPort: number,
): Promise<{ readonly child: ChildProcess; readonly port: number; errors(): string }> {
  const child = volar("vms", "forward", "remote", `0:${guestPort}`);
  assert.ok(child.stdout !== null && child.stderr !== null);
  let errors = "";
  child.stderr.setEncoding("utf8").on("data", (part: string) => (errors += part));
  const [line] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
  const port = Number(/127\.0\.0\.1:(\d+)/.exec(line)?.[1]);
  assert.ok(port > 0, line);
  return { child, port, errors: () => errors };
}

async function dial(port: number): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  await once(socket, "connect");
  return socket;
}

test("a VM in mode vsock runs without tap, address or Ethernet: its guest has lo and nothing else", async () => {
  const vm = await house.volarJson<Vm>("vms", "create", "remote", "--plugin", "probe", "--network", " VSOCK", "--wait");
  assert.equal(vm.status, "running");
  assert.deepEqual(
    [vm.network.mode, vm.network.tap, vm.network.addresses, vm.ip_address],
    ["vsock", undefined, [], ""],
  );
  assert.deepEqual(
    ipJson("link", "show").filter((link) => String(link["ifname"]).startsWith("vttap-")),
    [],
  );
  const links = (await exec(["/bin/busybox", "ls", "/sys/class/net"])).stdout.toString();
  assert.deepEqual(links.trim().split(/\s+/), ["lo"]);
  const words = (await exec(["/bin/busybox", "cat", "/proc/cmdline"])).stdout.toString();
  assert.doesNotMatch(words, /(^| )ip=/);
});

test("the workload's pages come through the proxy, and healthz is the agent's own", async () => {
  const page = await fetch(`${agentPath}/`);
  assert.equal(await page.text(), "probe\n");
  assert.match(page.headers.get("content-security-policy") ?? "", /sandbox/);
  assert.deepEqual(await (await fetch(`${agentPath}/healthz`)).json(), { status: "ok" });
  assert.match(await (await fetch(`${agentPath}/v1/cgi-bin/read?/etc/hostname`)).text(), /^remote$/m);
  assert.equal((await fetch(`${agentPath}/missing`)).status, 404);
});

test("10 MiB go through exec both ways, byte for byte, and so do binary bytes on both outputs", async () => {
  const body = randomBytes(10 * 1024 * 1024);
  const { code, stdout, stderr } = await exec(["/bin/busybox", "cat"], body);
  assert.deepEqual([code, stderr, stdout.length], [0, "", body.length]);
  assert.equal(digest(stdout), digest(body));
  const both = await exec(["sh", "-c", "printf '\\000\\377\\n'; printf 'oops\\n' >&2; exit 3"]);
  assert.deepEqual([both.code, both.stdout.toString("hex"), both.stderr], [3, "00ff0a", "oops\n"]);
});

test("10 MiB go through the proxy both ways, byte for byte", async () => {
  const script = "#!/bin/busybox sh\nprintf 'Content-Type: application/octet-stream\\r\\n\\r\\n'\nexec busybox cat\n";
  const put = await exec(
    ["sh", "-c", "busybox cat > /www/cgi-bin/echo && busybox chmod 755 /www/cgi-bin/echo"],
    Buffer.from(script),
  );
  assert.equal(put.code, 0, put.stderr);
  const body = randomBytes(10 * 1024 * 1024);
  const answer = await fetch(`${agentPath}/cgi-bin/echo`, { method: "POST", body });
  assert.equal(digest(new Uint8Array(await answer.arrayBuffer())), digest(body));
});

test("exec passes on exit codes, signals, environment and directory, and says what is not there", async () => {
  assert.equal((await exec(["sh", "-c", "exit 42"])).code, 42);
  assert.equal((await exec(["sh", "-c", "kill -9 $$"])).code, 128 + 9);
  const env = await exec(["sh", "-c", 'echo "$A $VOLANT_VM_NAME $(busybox pwd)"'], Buffer.alloc(0), [
    "--env",
    "A=b",
    "--cwd",
    "/www",
  ]);
  assert.equal(env.stdout.toString(), "b remote /www\n");
  const missing = await exec(["no-such-program"]);
  assert.equal(missing.code, 127);
  assert.match(missing.stderr, /^volar: exec: the guest has no program "no-such-program"/);
  const plain = await exec(["/www/index.html"]);
  assert.equal(plain.code, 126);
  assert.match(plain.stderr, /not executable/);
  const nowhere = await exec(["sh"], Buffer.alloc(0), ["--cwd", "/nowhere"]);
  assert.match(nowhere.stderr, /no directory "\/nowhere"/);
});

test("a program on a terminal sees its size and a new one, and what is typed", async () => {
  const streams = new GuestStreams({ baseUrl: base });
  const process = await streams.exec("remote", { argv: ["sh"], tty: { cols: 91, rows: 33 } });
  let shown = "";
  let look = () => {};
  process.stdout.setEncoding("utf8").on("data", (part: string) => {
    shown += part;
    look();
  });
  const shows = (pattern: RegExp) =>
    new Promise<void>((resolve) => {
      look = () => void (pattern.test(shown) && resolve());
      look();
    });
  process.stdin.write("busybox stty size\n");
  await shows(/^33 91\r$/m);
  process.resize({ cols: 120, rows: 40 });
  process.stdin.write("busybox stty size; test -t 0 && exit 7\n");
  await shows(/^40 120\r$/m);
  assert.deepEqual(await process.exit, { code: 7 });
});

test("a client that hangs up takes its program with it", async () => {
  const child = volar("vms", "exec", "remote", "--", "sh", "-c", "echo up; exec busybox sleep 4242");
  assert.ok(child.stdout !== null);
  await once(child.stdout, "data");
  child.kill("SIGKILL");
  const gone = await exec([
    "sh",
    "-c",
    "while busybox pgrep -f 'sleep 424[2]'; do busybox usleep 50000; done >/dev/null",
  ]);
  assert.equal(gone.code, 0);
});

test("forward carries TCP into the guest with each direction ending by itself, 10 MiB of it, and says when a port is closed", async () => {
  const server = volar(
    "vms",
    "exec",
    "remote",
    "--",
    "busybox",
    "nc",
    "-ll",
    "-p",
    "9000",
    "-e",
    "/bin/busybox",
    "cat",
  );
  await exec([
    "sh",
    "-c",
    "until busybox grep -q ':2328 ' /proc/net/tcp /proc/net/tcp6; do busybox usleep 50000; done",
  ]);
  const { child, port } = await forward(9000);
  const body = randomBytes(10 * 1024 * 1024);
  const socket = await dial(port);
  socket.end(body);
  assert.equal(digest(await buffer(socket)), digest(body));
  child.kill();
  server.kill();

  const closed = await forward(9);
  const refused = await dial(closed.port);
  assert.equal((await buffer(refused.on("error", () => {}).resume()).catch(() => Buffer.alloc(0))).length, 0);
  assert.match(closed.errors(), /port 9 in the guest: nothing listens there/);
  closed.child.kill();
});

test("readers that stall hold up only themselves", async () => {
  const streams = new GuestStreams({ baseUrl: base });
  const stalled = await Promise.all(
    Array.from({ length: 8 }, () => streams.exec("remote", { argv: ["/bin/busybox", "yes"] })),
  );
  // Their outputs are full, nobody reads them, and their inputs are filled as far as they go.
  for (const process of stalled) {
    await once(process.stdout, "readable");
    process.stdin.write(Buffer.alloc(1024 * 1024));
  }
  assert.equal(await (await fetch(`${agentPath}/`)).text(), "probe\n");
  const body = randomBytes(1024 * 1024);
  assert.equal(digest((await exec(["/bin/busybox", "cat"], body)).stdout), digest(body));
  for (const process of stalled) process.close();
  await exec(["sh", "-c", "while busybox pgrep -x yes; do busybox usleep 50000; done >/dev/null"]);
});

test("volantd may be killed in the middle of streams: the next one finds a clean link, and programs of lost clients are gone", async () => {
  const child = volar("vms", "exec", "remote", "--", "sh", "-c", "busybox yes 0123456789abcdef");
  assert.ok(child.stdout !== null && child.stderr !== null);
  await once(child.stdout, "data");
  child.stdout.resume();
  const said = text(child.stderr);
  await house.stopVolantd("SIGKILL");
  const [code] = (await once(child, "exit")) as [number];
  assert.equal(code, 1);
  assert.match(await said, /connection to the program in the guest broke/);
  await house.startVolantd();
  await house.volarDone("vms", "wait", "remote");
  const body = randomBytes(1024 * 1024);
  assert.equal(digest((await exec(["/bin/busybox", "cat"], body)).stdout), digest(body));
  assert.equal(await (await fetch(`${agentPath}/`)).text(), "probe\n");
  const gone = await exec(["sh", "-c", "while busybox pgrep -x yes; do busybox usleep 50000; done >/dev/null"]);
  assert.equal(gone.code, 0);
});

test("a VM on the bridge is reached the same way; one that is stopped, or not there, is said in a sentence", async () => {
  await house.volarDone("vms", "create", "bridged", "--plugin", "probe", "--wait");
  assert.equal(await (await fetch(`${base}/api/v1/vms/bridged/agent/`)).text(), "probe\n");
  await house.volarDone("vms", "stop", "bridged");
  const stopped = await fetch(`${base}/api/v1/vms/bridged/agent/`);
  assert.equal(stopped.status, 409);
  const none = await house.volar("vms", "exec", "nobody", "--", "true");
  assert.equal(none.code, 1);
  assert.match(none.stderr, /no VM named "nobody"/);
});
