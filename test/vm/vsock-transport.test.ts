/** Data over a real virtio-vsock device, served by vhost-device-vsock: in use, falling back, adopted, and gone with its VM. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { buffer } from "node:stream/consumers";
import test, { after, before, type TestContext } from "node:test";
import type { NumberedVmEvent, SystemInfo, Vm } from "@volant/contract";
import { GuestStreams } from "@volant/sdk/node";
import { enterOwnNamespace } from "../namespace.ts";
import { eventOf, fetchInTime, within } from "../patience.ts";
import { findProcesses, type House, openHouse, root, testedPrograms, vmEntries } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";
import { watchUntil } from "./watch-events.ts";

enterOwnNamespace(import.meta.url);

const base = "http://127.0.0.1:7777";
const installed = join(root, ".toolchain/vhost-device-vsock/bin/vhost-device-vsock");
const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const streams = new GuestStreams({ baseUrl: base });
const busybox = "/bin/busybox";
/** VMs' own users run the program from here, wherever this checkout lies. */
let programs: string;
let house: House;
let installation: string;

before(async () => {
  assert.ok(existsSync(installed), "vhost-device-vsock is built; npm test does that first");
  programs = mkdtempSync(join(tmpdir(), "vsock-programs-"));
  chmodSync(programs, 0o755);
  copyFileSync(installed, join(programs, "vhost-device-vsock"));
  execFileSync("cc", ["-static", "-O1", "-o", join(programs, "vsock-probe"), join(root, "test/vm/vsock-probe.c")]);
  const program = join(programs, "vhost-device-vsock");
  house = await openHouse({ env: { VOLANT_VSOCK: "on", VOLANT_VHOST_DEVICE_VSOCK: program } });
  ({ installation } = await house.api<SystemInfo>("/api/v1/system/info"));
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
});

after(async () => {
  await house?.close();
  rmSync(programs, { recursive: true, force: true });
});

const goesOver = (name: string, words: RegExp) =>
  watchUntil(base, (event) => event.name === name && words.test(event.message ?? ""));

const show = (name: string) => house.api<Vm>(`/api/v1/vms/${name}`);

/** Does something that leads to a connection over vsock, and waits for that. */
async function untilVsock(name: string, action: () => Promise<unknown>): Promise<Vm> {
  const told = await goesOver(name, /^its data goes over vsock$/);
  await action();
  await told.seen;
  await house.volarDone("vms", "wait", name);
  const vm = await show(name);
  assert.deepEqual([vm.agent.transport, vm.agent.transport_reason], ["vsock", undefined]);
  return vm;
}

async function exec(name: string, argv: readonly string[], input: Uint8Array = Buffer.alloc(0)) {
  const process = await streams.exec(name, { argv: [...argv] });
  process.stdin.on("error", () => {}).end(input);
  const all = Promise.all([buffer(process.stdout), buffer(process.stderr), process.exit]);
  const [stdout, , end] = await within(all, `the end of ${argv.join(" ")} in ${name}`);
  return { stdout, text: stdout.toString().trim(), end };
}

/** Pids of what serves a VM's device, read from the kernel and not from volantd. */
const backends = (vm: Vm): number[] => findProcesses(`groups=volant:${installation}:${vm.id}:`);

function threads(pid: number): string[] {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).map((task) => readFileSync(join(tasks, task, "comm"), "utf8").trim());
}

async function putProbe(name: string): Promise<void> {
  const script = "busybox cat > /bin/vsock-probe && busybox chmod 755 /bin/vsock-probe";
  const { end } = await exec(name, ["sh", "-c", script], readFileSync(join(programs, "vsock-probe")));
  assert.deepEqual(end, { code: 0 });
}

/** One command to a hypervisor that no volantd has hold of. */
async function qmp(vm: Vm, command: string): Promise<void> {
  const socket = connect(join(house.directory, "run", String(vm.id), "qmp"));
  const lines = createInterface({ input: socket });
  socket.write(`{"execute":"qmp_capabilities"}\n{"execute":"${command}","id":"answer"}\n`);
  for await (const line of lines) if (line.includes('"answer"')) break;
  socket.destroy();
}

test("a guest has a vsock device with its row's context id, and its data goes over it, in mode vsock, byte for byte", async () => {
  const vm = await untilVsock("a", () =>
    house.volarDone("vms", "create", "a", "--plugin", "probe", "--network", "vsock", "--wait"),
  );
  const { transport } = await house.api<SystemInfo>("/api/v1/system/info");
  assert.deepEqual(transport, { data: "vsock", wanted: "on" });
  await putProbe("a");
  assert.equal((await exec("a", ["vsock-probe", "cid"])).text, String(vm.vsock_cid));
  const body = randomBytes(10 * 1024 * 1024);
  assert.equal(digest((await exec("a", [busybox, "cat"], body)).stdout), digest(body));
  assert.equal(await (await fetchInTime(`${base}/api/v1/vms/a/agent/`)).text(), "probe\n");
  const status = (await exec("a", [busybox, "cat", "/proc/1/status"])).text;
  const residentKib = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
  assert.ok(residentKib > 0 && residentKib <= 4096, `the agent has ${residentKib} KiB`);
});

test("what serves the device is a process of the VM's own user without any privilege, in a session of its own", async () => {
  const vm = await show("a");
  const [pid = 0, ...others] = backends(vm);
  assert.deepEqual(others, []);
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const field = (name: string) => new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(status)?.[1]?.trim();
  const uid = statSync(`/proc/${vm.pid}`).uid;
  assert.equal(field("Uid"), `${uid}\t${uid}\t${uid}\t${uid}`);
  assert.equal(field("Groups"), "");
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) assert.equal(field(set), "0".repeat(16), set);
  assert.equal(field("NoNewPrivs"), "1");
  assert.equal(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[3], String(pid));
  const folder = join(house.directory, "run", String(vm.id));
  assert.deepEqual([statSync(folder).uid, statSync(folder).mode & 0o777], [0, 0o700]);
  assert.deepEqual([statSync(join(folder, "vsock")).uid, statSync(join(folder, "vsock")).mode & 0o777], [uid, 0o700]);
});

/** Asks the host's end of a VM's device for a port, as volantd's gate does. */
async function dialFromHost(vm: Vm, port: number): Promise<string> {
  const socket = connect(join(house.directory, "run", String(vm.id), "data"));
  socket.write(`CONNECT ${port}\n`);
  let text = "";
  const read = async (): Promise<string> => {
    for await (const part of socket.setEncoding("utf8")) {
      text += part as string;
      if (text.includes("hello\n")) break;
    }
    return text;
  };
  return within(read(), `a greeting from port ${port}`, () => text).finally(() => socket.destroy());
}

test("guests can't reach each other over vsock, nor a guest's program its own agent, while the host reaches both", async () => {
  const a = await show("a");
  const b = await untilVsock("b", () => house.volarDone("vms", "create", "b", "--plugin", "probe", "--wait"));
  assert.notEqual(a.vsock_cid, b.vsock_cid);
  await putProbe("b");
  const server = await streams.exec("b", { argv: ["vsock-probe", "serve", "5000"] });
  await eventOf(server.stdout, "data", "the first output of vsock-probe");
  assert.match(await dialFromHost(b, 5000), /^OK \d+\nhello\n/);
  assert.equal((await exec("a", ["vsock-probe", "dial", String(b.vsock_cid), "5000"])).text, "dial: ETIMEDOUT");
  assert.equal((await exec("a", ["vsock-probe", "dial", String(b.vsock_cid), "1000"])).text, "dial: ETIMEDOUT");
  for (const cid of [a.vsock_cid, 1, 2]) {
    const { text, end } = await exec("a", ["vsock-probe", "dial", String(cid), "1000"]);
    assert.deepEqual(end, { code: 1 }, text);
    assert.match(text, /^dial: E/);
  }
  server.close();
  for (const name of ["a", "b"]) assert.equal((await show(name)).agent.transport, "vsock");
});

test("volantd killed while data flows finds the process again, and data goes over vsock once more", async () => {
  const a = await show("a");
  const before = backends(a);
  const flowing = await streams.exec("a", { argv: [busybox, "yes"] });
  flowing.exit.catch(() => {});
  flowing.stdout.on("error", () => {});
  await eventOf(flowing.stdout, "data", "the first output of yes");
  flowing.stdout.resume();
  const [last] = await house.api<NumberedVmEvent[]>("/api/v1/events?limit=1");
  await house.stopVolantd("SIGKILL");
  await house.startVolantd();
  // It may be attached by now, and its event told: those are kept.
  const response = await fetchInTime(`${base}/api/v1/events/vms?after=${last?.id}`);
  let text = "";
  for await (const chunk of (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (/"name":"a".*its data goes over vsock/.test(text)) break;
  }
  assert.deepEqual(backends(a), before);
  const body = randomBytes(1024 * 1024);
  assert.equal(digest((await exec("a", [busybox, "cat"], body)).stdout), digest(body));
  assert.equal((await show("a")).agent.transport, "vsock");
});

test("a VM that is paused is not touched: its device works as before when it goes on", async () => {
  const a = await show("a");
  await house.stopVolantd();
  await qmp(a, "stop");
  await house.startVolantd();
  const refused = await house.volar("vms", "exec", "a", "--", busybox, "true");
  assert.match(refused.stderr, /not connected/);
  assert.deepEqual((await show("a")).agent, { attached: false, responding: false });
  const [pid = 0] = backends(a);
  assert.ok(threads(pid).includes("vring_worker"));
  await house.stopVolantd();
  await qmp(a, "cont");
  await house.startVolantd();
  await house.volarDone("vms", "wait", "a");
  const body = randomBytes(1024 * 1024);
  assert.equal(digest((await exec("a", [busybox, "cat"], body)).stdout), digest(body));
  assert.deepEqual(backends(a), [pid]);
  assert.ok(threads(pid).includes("vring_worker"));
});

async function forward(context: TestContext, name: string, port: number): Promise<Socket> {
  const child = spawn(join(testedPrograms, "volar"), ["vms", "forward", name, `0:${port}`], {
    env: house.environment,
    stdio: ["ignore", "pipe", "ignore"],
  });
  context.after(() => void child.kill("SIGTERM"));
  const [line] = (await eventOf(createInterface({ input: child.stdout }), "line", "the port of volar vms forward")) as [
    string,
  ];
  const socket = connect(Number(/127\.0\.0\.1:(\d+)/.exec(line)?.[1]), "127.0.0.1");
  await eventOf(socket, "connect", "a forwarded connection");
  context.after(() => void socket.destroy());
  return socket;
}

test("exec, forward and the proxy go over it: when it is killed, all three break, the VM says why, and the next go over virtio-serial", async (context) => {
  const script = "#!/bin/busybox sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nbegun\\n'\nexec busybox sleep 4242\n";
  const put = "busybox cat > /www/cgi-bin/slow && busybox chmod 755 /www/cgi-bin/slow";
  await exec("b", ["sh", "-c", put], Buffer.from(script));
  const echo = await streams.exec("b", { argv: [busybox, "nc", "-ll", "-p", "9000", "-e", busybox, "cat"] });
  echo.exit.catch(() => {});
  const wait = "until busybox grep -q ':2328 ' /proc/net/tcp /proc/net/tcp6; do busybox usleep 50000; done";
  await exec("b", ["sh", "-c", wait]);
  const b = await show("b");
  assert.equal(b.agent.transport, "vsock");

  const running = await streams.exec("b", { argv: [busybox, "cat"] });
  const forwarded = await forward(context, "b", 9000);
  forwarded.write("over and back");
  await eventOf(forwarded, "data", "the echo of a forwarded connection");
  const page = await fetchInTime(`${base}/api/v1/vms/b/agent/cgi-bin/slow`);
  const reader = (page.body as ReadableStream<Uint8Array>).getReader();
  context.after(() => void reader.cancel().catch(() => {}));
  assert.match(Buffer.from((await reader.read()).value ?? []).toString(), /^begun/);

  const fallen = await goesOver("b", /^its data goes over virtio-serial: its vhost-device-vsock has ended$/);
  const ends = [
    assert.rejects(running.exit),
    assert.rejects(async () => {
      while (!(await reader.read()).done);
    }),
    once(
      forwarded.resume().on("error", () => {}),
      "close",
    ),
  ];
  for (const pid of backends(b)) process.kill(pid, "SIGKILL");
  await within(Promise.all([...ends, fallen.seen]), "the end of all streams over vsock");

  const after = await show("b");
  assert.deepEqual(
    [after.status, after.agent.attached, after.agent.transport, after.agent.transport_reason, after.pid],
    ["running", true, "virtio-serial", "its vhost-device-vsock has ended", b.pid],
  );
  const body = randomBytes(1024 * 1024);
  assert.equal(digest((await exec("b", [busybox, "cat"], body)).stdout), digest(body));
  assert.equal(await (await fetchInTime(`${base}/api/v1/vms/b/agent/`)).text(), "probe\n");
  const doctor = await house.volar("doctor");
  assert.match(doctor.stdout, /warning +transport +data of VM b goes over virtio-serial and not over vsock/);
  assert.match(doctor.stdout, /fix: volar vms restart b/);
  await untilVsock("b", () => house.volarDone("vms", "restart", "b", "--wait"));
});

test("with its hypervisor the process goes, whether volantd saw the end or not", async () => {
  const b = await show("b");
  assert.equal(backends(b).length, 1);
  const crashed = await watchUntil(base, ({ type, name }) => type === "VM_CRASHED" && name === "b");
  process.kill(b.pid ?? 0, "SIGKILL");
  await crashed.seen;
  await untilVsock("b", () => house.volarDone("vms", "start", "b", "--wait"));
  const again = await show("b");
  assert.equal(backends(again).length, 1);
  await house.stopVolantd("SIGKILL");
  process.kill(again.pid ?? 0, "SIGKILL");
  await house.startVolantd();
  await house.volarDone("vms", "wait", "b", "--status", "crashed");
  await house.volarDone("vms", "delete", "a", "b");
  assert.deepEqual(findProcesses(`volant:${installation}:`), []);
  assert.deepEqual(vmEntries(join(house.directory, "run")), []);
});
