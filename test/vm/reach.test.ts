/** Reaching into a guest that has no network at all: everything goes through its agent. */
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { get, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { buffer, text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { GuestStreams } from "@volant/sdk/node";
import { enterOwnNamespace, ipJson } from "../namespace.ts";
import { eventOf, fetchInTime, until, within } from "../patience.ts";
import { type House, openHouse, testedPrograms } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const base = "http://127.0.0.1:7777";
const agentPath = `${base}/api/v1/vms/remote/agent`;
const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const actions = { echo: { method: "POST", path: "/cgi-bin/echo" } };
const openapi = { openapi: "3.1.0", paths: { "/index.html": { get: { operationId: "page" } } } };
const SMALL_REQUESTS = 1000;
let house: House;

before(async () => {
  house = await openHouse();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  writeFileSync(join(directory, "api.json"), JSON.stringify(openapi, undefined, 2));
  await house.volarDone("plugins", "install", buildProbePlugin(directory, { actions, openapi: "api.json" }));
});
after(() => house?.close());

interface Ended {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

function volar(...args: string[]): ChildProcess {
  return spawn(join(testedPrograms, "volar"), args, { env: house.environment, stdio: ["pipe", "pipe", "pipe"] });
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
  const all = Promise.all([buffer(child.stdout), text(child.stderr), closed]);
  const [stdout, stderr, [code]] = await within(all, `the end of volar vms exec ${command.join(" ")}`);
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
  const [line] = (await eventOf(createInterface({ input: child.stdout }), "line", "the port of volar vms forward")) as [
    string,
  ];
  const port = Number(/127\.0\.0\.1:(\d+)/.exec(line)?.[1]);
  assert.ok(port > 0, line);
  return { child, port, errors: () => errors };
}

async function dial(port: number): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  await eventOf(socket, "connect", "a forwarded connection");
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
  const page = await fetchInTime(`${agentPath}/`);
  assert.equal(await page.text(), "probe\n");
  assert.match(page.headers.get("content-security-policy") ?? "", /sandbox/);
  assert.deepEqual(await (await fetchInTime(`${agentPath}/healthz`)).json(), { status: "ok" });
  assert.match(await (await fetchInTime(`${agentPath}/v1/cgi-bin/read?/etc/hostname`)).text(), /^remote$/m);
  assert.equal((await fetchInTime(`${agentPath}/missing`)).status, 404);
});

test("a thousand small requests, one after another with nothing else on the link, are each answered", async () => {
  // A wake-up that the agent's port loses is one in some hundreds, and heals with the next byte that comes: so nothing else may.
  for (let count = 0; count < SMALL_REQUESTS; count += 1) {
    // A connection of its own each: its end goes into the guest beside the next one's beginning.
    const asked = get(`${agentPath}/`, { agent: false });
    const [answer] = (await eventOf(asked, "response", `the answer to request ${count}`)) as [IncomingMessage];
    assert.equal(await text(answer), "probe\n");
  }
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
  const answer = await fetchInTime(`${agentPath}/cgi-bin/echo`, { method: "POST", body });
  assert.equal(digest(new Uint8Array(await answer.arrayBuffer())), digest(body));
});

test("an action asks the workload, and an operation of its document, which came with the plugin, is called", async () => {
  const input = { greeting: "hello", list: [1, 2] };
  const answer = await fetchInTime(`${base}/api/v1/vms/remote/actions/probe/echo`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(input),
  });
  assert.deepEqual([answer.status, await answer.json()], [200, input]);
  assert.equal(answer.headers.get("x-volant-answered-by"), "remote");
  const document = await fetchInTime(`${base}/api/v1/vms/remote/openapi`);
  assert.deepEqual(await document.json(), openapi);
  assert.equal(await house.volarDone("vms", "call", "remote", "page"), "probe\n");
});

test("what the guest writes to its serial port is on its console, and what is typed there reaches the guest", async () => {
  const console = await new GuestStreams({ baseUrl: base }).console("remote");
  let printed = "";
  console.on("data", (bytes: Buffer) => (printed += bytes.toString()));
  const told = await exec(["sh", "-c", "echo from the guest > /dev/ttyS0"]);
  assert.equal(told.code, 0, told.stderr);
  await until("it is printed", () => printed.includes("from the guest\r\n"));
  const reader = exec(["/bin/busybox", "head", "-n", "1", "/dev/ttyS0"]);
  // What is typed before somebody reads may be lost, as on any serial line.
  const typing = setInterval(() => console.write("to the guest\r"), 500);
  const { stdout } = await reader;
  clearInterval(typing);
  assert.equal(stdout.toString(), "to the guest\n");
  console.destroy();
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
    within(
      new Promise<void>((resolve) => {
        look = () => void (pattern.test(shown) && resolve());
        look();
      }),
      `a terminal that shows ${String(pattern)}`,
      () => shown,
    );
  process.stdin.write("busybox stty size\n");
  await shows(/^33 91\r$/m);
  process.resize({ cols: 120, rows: 40 });
  process.stdin.write("busybox stty size; test -t 0 && exit 7\n");
  await shows(/^40 120\r$/m);
  assert.deepEqual(await within(process.exit, "the end of a shell"), { code: 7 });
});

test("a client that hangs up takes its program with it", async () => {
  const child = volar("vms", "exec", "remote", "--", "sh", "-c", "echo up; exec busybox sleep 4242");
  assert.ok(child.stdout !== null);
  await eventOf(child.stdout, "data", "the first output of a program");
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
  assert.equal(
    digest(await within(buffer(socket), "10 MiB by forward", () => `${socket.bytesRead} bytes came`)),
    digest(body),
  );
  child.kill();
  server.kill();

  const closed = await forward(9);
  const refused = await dial(closed.port);
  assert.equal(
    (
      await within(
        buffer(refused.on("error", () => {})).catch(() => Buffer.alloc(0)),
        "the end of a refused one",
      )
    ).length,
    0,
  );
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
    await eventOf(process.stdout, "readable", "the first output of yes");
    process.stdin.write(Buffer.alloc(1024 * 1024));
  }
  assert.equal(await (await fetchInTime(`${agentPath}/`)).text(), "probe\n");
  const body = randomBytes(1024 * 1024);
  assert.equal(digest((await exec(["/bin/busybox", "cat"], body)).stdout), digest(body));
  for (const process of stalled) process.close();
  await exec(["sh", "-c", "while busybox pgrep -x yes; do busybox usleep 50000; done >/dev/null"]);
});

test("volantd may be killed in the middle of streams: the next one finds a clean link, and programs of lost clients are gone", async () => {
  const child = volar("vms", "exec", "remote", "--", "sh", "-c", "busybox yes 0123456789abcdef");
  assert.ok(child.stdout !== null && child.stderr !== null);
  await eventOf(child.stdout, "data", "the first output of a program");
  child.stdout.resume();
  const said = text(child.stderr);
  const ended = once(child, "exit");
  await house.stopVolantd("SIGKILL");
  const [code] = (await within(ended, "the end of volar without volantd")) as [number];
  assert.equal(code, 1);
  assert.match(await said, /connection to the program in the guest broke/);
  await house.startVolantd();
  await house.volarDone("vms", "wait", "remote");
  const body = randomBytes(1024 * 1024);
  assert.equal(digest((await exec(["/bin/busybox", "cat"], body)).stdout), digest(body));
  assert.equal(await (await fetchInTime(`${agentPath}/`)).text(), "probe\n");
  const gone = await exec(["sh", "-c", "while busybox pgrep -x yes; do busybox usleep 50000; done >/dev/null"]);
  assert.equal(gone.code, 0);
});

test("a VM on the bridge is reached the same way; one that is stopped, or not there, is said in a sentence", async () => {
  await house.volarDone("vms", "create", "bridged", "--plugin", "probe", "--wait");
  assert.equal(await (await fetchInTime(`${base}/api/v1/vms/bridged/agent/`)).text(), "probe\n");
  await house.volarDone("vms", "stop", "bridged");
  const stopped = await fetchInTime(`${base}/api/v1/vms/bridged/agent/`);
  assert.equal(stopped.status, 409);
  const none = await house.volar("vms", "exec", "nobody", "--", "true");
  assert.equal(none.code, 1);
  assert.match(none.stderr, /no VM named "nobody"/);
});
