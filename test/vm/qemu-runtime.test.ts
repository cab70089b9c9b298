/** The QEMU runtime and the image store with real guests: busybox plays the agent. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  watch,
  writeFileSync,
} from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { createHash } from "node:crypto";
import test, { after, before } from "node:test";
import { VolantError } from "@volant/contract";
import { confinerPath } from "@volant/host/installation";
import { Netlink } from "@volant/netlink";
import { FileImageStore } from "../../packages/volantd/src/image/image-store.ts";
import { encodeNewc } from "../../packages/volantd/src/image/newc.ts";
import { MAX_FILE_BYTES } from "../../packages/volantd/src/runtime/console-log.ts";
import { startTicksOf } from "../../packages/volantd/src/runtime/process-table.ts";
import { virtioTransport, type Machine } from "../../packages/volantd/src/runtime/qemu/argv.ts";
import { QemuRuntime } from "../../packages/volantd/src/runtime/qemu/qemu-runtime.ts";
import type { LaunchSpec } from "../../packages/volantd/src/runtime/runtime.ts";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { eventOf, within } from "../patience.ts";

enterOwnNamespace(import.meta.url);

const INSTALLATION = "0123456789abcdef";
const BOOT_MS = 120_000;
const kernelDir = join(import.meta.dirname, "../../.cache/volant/kernel");
const folder = mkdtempSync(join(tmpdir(), "volant-qemu-"));
const runtimeDir = join(folder, "run");
const logDir = join(folder, "log");
const log = { info() {}, warn: (fields: object, message: string) => console.error(message, fields) };

/**
 * The agent's stand-in (a port without a client reads as ended, so it is asked again): loads the drivers, says what it sees, echoes its control port, powers off when the button is pressed; or does what `test=` says.
 */
const AGENT = `#!/bin/busybox sh
export PATH=/bin
busybox mount -t devtmpfs dev /dev; busybox mount -t proc proc /proc; busybox mount -t sysfs sys /sys
for module in /.volant/modules/*.ko; do busybox insmod $module; done
read cmdline < /proc/cmdline
case "$cmdline" in *test=panic*) exit 3;; esac
echo "LINKS" $(busybox ls /sys/class/net) "MAC" $(busybox cat /sys/class/net/eth0/address 2>/dev/null)
echo "PORTS" $(busybox cat /sys/class/virtio-ports/*/name | busybox sort)
echo "RNG" $(busybox cat /sys/class/misc/hw_random/rng_current)
for port in /sys/class/virtio-ports/*; do
  read name < $port/name
  if [ "$name" = volant.control ]; then
    ( exec 3<>/dev/\${port##*/}; while :; do if read line <&3; then echo "heard $line" >&3; else busybox usleep 50000; fi; done ) &
  fi
done
for event in /dev/input/event*; do
  ( busybox dd if=$event of=/dev/null bs=24 count=1 2>/dev/null; echo BUTTON; busybox poweroff -f ) &
done
case "$cmdline" in *test=network*) busybox ip link set eth0 up;; esac
echo READY
case "$cmdline" in
  *test=poweroff*) busybox poweroff -f;;
  *test=flood*) exec busybox yes flooding the console with a rather long line of no use to anyone at all;;
esac
while :; do busybox sleep 1000; done
`;

let images: FileImageStore;
let initrdPath: string;
let netlink: Netlink;

async function openRuntime(
  options: { readonly machine?: Machine; readonly rotateIntervalMs?: number } = {},
): Promise<QemuRuntime> {
  return await QemuRuntime.open({
    installation: INSTALLATION,
    confiner: confinerPath(),
    runtimeDir,
    logDir,
    log,
    ...options,
  });
}

async function bootImage(transport: "mmio" | "pci"): Promise<string> {
  images = await FileImageStore.open({
    workDir: join(folder, "work"),
    agentPath: join(folder, "agent"),
    bzImagePath: join(kernelDir, "bzImage"),
    vmlinuxPath: join(kernelDir, "vmlinux"),
    transport,
  });
  const plugin = encodeNewc([
    { path: "bin", kind: "directory", mode: 0o755 },
    { path: "bin/busybox", kind: "file", mode: 0o755, content: readFileSync("/bin/busybox") },
  ]);
  const checksum = `sha256:${createHash("sha256").update(plugin).digest("hex")}`;
  await images.put(checksum, Readable.from([plugin]));
  return (await images.bootImage(checksum)).initrdPath;
}

before(async () => {
  assert.ok(existsSync(join(kernelDir, "kernel.json")), "a guest kernel is installed; npm test does that first");
  writeFileSync(join(folder, "agent"), AGENT);
  const runtime = await openRuntime();
  initrdPath = await bootImage(runtime.info.machine === "microvm" ? "mmio" : "pci");
  await runtime.close();
  netlink = await Netlink.open();
});

after(async () => {
  const runtime = await openRuntime();
  for (const process of await runtime.observe()) await runtime.kill(process);
  await runtime.close();
  await netlink.close();
  rmSync(folder, { recursive: true, force: true });
});

async function spec(vmId: number, word: string, changes: Partial<LaunchSpec> = {}): Promise<LaunchSpec> {
  const kernel = await images.kernel();
  return {
    vmId,
    generation: 1,
    name: `vm${vmId}`,
    cpuCores: 1,
    memoryMib: 96,
    kernel,
    initrdPath,
    cmdline: `test=${word}`,
    vsockCid: 3,
    ...changes,
  };
}

/** Reads a socket until its text matches. */
async function readUntil(socket: Socket, pattern: RegExp): Promise<string> {
  let text = "";
  const signal = AbortSignal.timeout(BOOT_MS);
  for (;;) {
    const [chunk] = (await once(socket, "data", { signal })) as [Buffer];
    text = (text + chunk.toString("latin1")).slice(-100_000);
    if (pattern.test(text)) return text;
  }
}

async function withSocket<T>(path: string, use: (socket: Socket) => Promise<T>): Promise<T> {
  const socket = connect(path);
  try {
    await eventOf(socket, "connect", `a connection to ${path}`);
    return await use(socket);
  } finally {
    socket.destroy();
  }
}

async function untilConsole(runtime: QemuRuntime, vmId: number, pattern: RegExp): Promise<string> {
  return await withSocket(runtime.sockets(vmId).serial, (socket) => readUntil(socket, pattern));
}

/** Says something to the guest's control port and waits for its answer: the guest is alive, and not held up. */
async function assertAnswers(runtime: QemuRuntime, vmId: number, word: string): Promise<void> {
  await withSocket(runtime.sockets(vmId).control, async (socket) => {
    socket.write(`${word}\n`);
    await readUntil(socket, new RegExp(`heard ${word}`));
  });
}

/** Resolves once the condition holds, looking again whenever something in the folder changes. */
async function untilFile(path: string, condition: () => boolean): Promise<void> {
  const signal = AbortSignal.timeout(BOOT_MS);
  const watcher = watch(path, { signal });
  try {
    while (!condition()) await once(watcher, "change", { signal });
  } finally {
    watcher.close();
  }
}

function refused(code: string, words: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof VolantError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, words);
    return true;
  };
}

test("a guest boots on its tap, confined, and outlives the volantd that started it, which finds it again and presses its button", async () => {
  const first = await openRuntime();
  const { uid, gid } = first.identity(7);
  await netlink.links.create({ name: "vbr0", kind: "bridge", up: true });
  await netlink.taps.create({
    name: "vttap-vm7",
    owner: uid,
    attach: { master: "vbr0", alias: `volant:${INSTALLATION}:7`, up: true },
  });
  const launch = await spec(7, "network", { network: { tap: "vttap-vm7", mac: "02:00:00:00:00:07" }, generation: 4 });
  const launcher = spawn(
    process.execPath,
    [
      "--input-type=module",
      "--eval",
      `import { QemuRuntime } from ${JSON.stringify(join(import.meta.dirname, "../../packages/volantd/src/runtime/qemu/qemu-runtime.ts"))};
       const options = ${JSON.stringify({ installation: INSTALLATION, confiner: confinerPath(), runtimeDir, logDir })};
       const runtime = await QemuRuntime.open({ ...options, log: { info() {}, warn() {} } });
       await runtime.launch(${JSON.stringify(launch)}, AbortSignal.timeout(60_000));
       process.stdout.write("launched\\n");
       setInterval(() => {}, 1000);`,
    ],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const [said] = (await eventOf(launcher.stdout, "data", "a launched guest")) as [Buffer];
  assert.equal(said.toString(), "launched\n");
  const console = untilConsole(first, 7, /READY/);
  const gone = once(launcher, "exit");
  launcher.kill("SIGKILL");
  await within(gone, "the end of a killed process");

  const [found, ...others] = await first.observe();
  assert.ok(found !== undefined && others.length === 0);
  assert.deepEqual([found.vmId, found.generation, found.startTicks], [7, 4, startTicksOf(found.pid)]);
  const status = readFileSync(`/proc/${found.pid}/status`, "utf8");
  const field = (name: string): string =>
    (new RegExp(`^${name}:[ \\t]*(.*)$`, "m").exec(status)?.[1] ?? "absent").trim();
  assert.equal(field("Uid"), `${uid}\t${uid}\t${uid}\t${uid}`);
  assert.equal(field("Gid"), `${gid}\t${gid}\t${gid}\t${gid}`);
  assert.equal(field("Groups"), "");
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) assert.equal(field(set), "0".repeat(16), set);
  assert.equal(field("NoNewPrivs"), "1");
  assert.equal(field("Seccomp"), "2");
  const limits = readFileSync(`/proc/${found.pid}/limits`, "utf8");
  assert.match(limits, new RegExp(`^Max file size +${MAX_FILE_BYTES} +${MAX_FILE_BYTES} `, "m"));
  assert.match(limits, /^Max core file size +0 +0 /m);
  assert.equal(readFileSync(`/proc/${found.pid}/oom_score_adj`, "utf8"), "200\n");
  assert.equal(statSync(join(runtimeDir, "7")).mode & 0o777, 0o700);
  assert.equal(statSync(join(runtimeDir, "7")).uid, 0);

  const text = await console;
  assert.match(text, /LINKS eth0 lo MAC 02:00:00:00:00:07/);
  assert.match(text, /PORTS volant.control volant.stream/);
  assert.match(text, /RNG virtio_rng/);
  const [tap] = ipJson("link", "show", "vttap-vm7");
  assert.ok((tap?.["flags"] as string[] | undefined)?.includes("LOWER_UP"));
  await assertAnswers(first, 7, "hello");
  // A second tap user is refused by the kernel: the first has it.
  await assert.rejects(
    first.launch(
      { ...(await spec(8, "idle")), network: { tap: "vttap-vm7", mac: "02:00:00:00:00:08" } },
      AbortSignal.timeout(60_000),
    ),
    refused("exhausted", /^VM vm8 can't be started yet: another program has in use what it needs/),
  );
  await first.removeFolder(8);

  const ended = first.waitForExit(found);
  await first.pressPowerButton(found);
  await ended;
  assert.deepEqual(await first.observe(), []);
  const report = await first.exitReport(7, 4);
  assert.equal(report.cause, "guest-shutdown");
  assert.ok(report.consoleTail.includes("BUTTON"), report.consoleTail.join("\n"));
  assert.equal((await first.exitReport(7, 5)).cause, "unknown");
  assert.deepEqual(await first.listFolders(), [7]);
  await first.removeFolder(7);
  await first.removeFolder(7);
  assert.deepEqual(readdirSync(runtimeDir), []);
  assert.deepEqual(readdirSync(logDir), []);
  await first.close();
  ip("link", "delete", "vttap-vm7");
  ip("link", "delete", "vbr0");
});

for (const machine of ["microvm", "q35"] as const) {
  test(`a guest on ${machine} boots from the compressed kernel and powers itself off`, async () => {
    const runtime = await openRuntime({ machine });
    const launch = await spec(9, "poweroff");
    const { bzImagePath } = launch.kernel;
    const image = await bootImage(virtioTransport(machine));
    const process = await runtime.launch(
      { ...launch, kernel: { bzImagePath }, initrdPath: image },
      AbortSignal.timeout(60_000),
    );
    const console = untilConsole(runtime, 9, /READY/);
    const ended = runtime.waitForExit(process);
    assert.match(await console, /PORTS volant.control volant.stream/);
    await ended;
    assert.deepEqual((await runtime.exitReport(9, 1)).cause, "guest-shutdown");
    await runtime.removeFolder(9);
    await runtime.close();
  });
}

test("a panic and a kill from outside are told apart, and what happened is said", async () => {
  const runtime = await openRuntime();
  const panicking = await runtime.launch(await spec(10, "panic"), AbortSignal.timeout(60_000));
  const victim = await runtime.launch(await spec(11, "idle"), AbortSignal.timeout(60_000));
  process.kill(victim.pid, "SIGKILL");
  await runtime.waitForExit(victim);
  await runtime.waitForExit(panicking);
  const panic = await runtime.exitReport(10, 1);
  assert.equal(panic.cause, "guest-panic");
  assert.match(panic.message, /Attempted to kill init/);
  const kill = await runtime.exitReport(11, 1);
  assert.deepEqual([kill.cause, kill.message], ["host-signal", "the hypervisor was ended by SIGKILL"]);
  // The next run is not told with the words of this one, whose console is kept aside.
  const next = await runtime.launch(await spec(10, "idle", { generation: 2 }), AbortSignal.timeout(60_000));
  await runtime.kill(next);
  const second = await runtime.exitReport(10, 2);
  assert.deepEqual([second.cause, second.message], ["host-signal", "the hypervisor was ended by SIGKILL"]);
  assert.match(readFileSync(join(logDir, "vm-10.console.previous.log"), "latin1"), /Attempted to kill init/);
  // Both are gone: neither is an error.
  await runtime.kill(victim);
  await runtime.pressPowerButton(victim);
  for (const vmId of [10, 11]) await runtime.removeFolder(vmId);
  await runtime.close();
});

test("a guest that floods its console neither fills the disk nor stops, whether volantd lives or not", async () => {
  const runtime = await openRuntime({ rotateIntervalMs: 20 });
  const process = await runtime.launch(await spec(12, "flood"), AbortSignal.timeout(60_000));
  await untilConsole(runtime, 12, /flooding the console/);
  const consolePath = join(runtimeDir, "12", "console.log");
  const archive = join(logDir, "vm-12.console.log");
  // Near the point where it is rotated, so that the test need not wait for a megabyte from an emulated serial port.
  truncateSync(consolePath, 1024 * 1024 - 1000);
  await untilFile(logDir, () => existsSync(archive));
  await assertAnswers(runtime, 12, "rotated");
  assert.ok(statSync(archive).size <= MAX_FILE_BYTES);

  await runtime.close();
  truncateSync(consolePath, MAX_FILE_BYTES - 10_000);
  await untilFile(join(runtimeDir, "12"), () => statSync(consolePath).size === MAX_FILE_BYTES);
  const later = await openRuntime();
  await assertAnswers(later, 12, "full");
  assert.equal(statSync(consolePath).size, MAX_FILE_BYTES);
  assert.deepEqual(await later.observe(), [process]);
  await later.kill(process);
  assert.deepEqual(await later.observe(), []);
  await later.removeFolder(12);
  await later.close();
});

test("a launch that can't be is refused in one sentence, and leaves no process", async () => {
  const runtime = await openRuntime();
  const good = await spec(13, "idle");
  const launch = (changes: Partial<LaunchSpec>) => runtime.launch({ ...good, ...changes }, AbortSignal.timeout(60_000));
  await assert.rejects(
    launch({ network: { tap: "vttap-absent", mac: "02:00:00:00:00:0d" } }),
    refused("not_ready", /the tap vttap-absent of VM vm13 can't be opened/),
  );
  await assert.rejects(
    launch({ initrdPath: join(folder, "absent") }),
    refused("not_ready", /boot image .* does not exist/),
  );
  await assert.rejects(
    launch({ kernel: { bzImagePath: "/absent" } }),
    refused("not_ready", /kernel \/absent does not exist/),
  );
  await assert.rejects(launch({ memoryMib: 16_000_000 }), refused("not_ready", /ended at its start .*memory/));
  await assert.rejects(launch({ cmdline: "x".repeat(2048) }), refused("invalid", /command line is/));
  const aborted = new AbortController();
  const launching = runtime.launch(good, aborted.signal);
  aborted.abort(new Error("changed my mind"));
  await assert.rejects(launching, /changed my mind/);
  assert.deepEqual(await runtime.observe(), []);
  await runtime.removeFolder(13);
  await runtime.close();
});

test("kill spares a process that has only the pid in common", async () => {
  const runtime = await openRuntime();
  const bystander = spawn("sleep", ["60"]);
  await once(bystander, "spawn");
  const pid = bystander.pid as number;
  await runtime.kill({ vmId: 14, generation: 1, pid, startTicks: (startTicksOf(pid) as bigint) - 1n });
  assert.ok(startTicksOf(pid) !== undefined);
  bystander.kill("SIGKILL");
  await runtime.close();
});
