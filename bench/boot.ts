/**
 * From "create this VM" to the first byte of its web page, against a bare busybox init: the same QEMU, flags, kernel, command line and
 * kernel modules, started by hand, with a web server and nothing else in the guest. Also what the agent weighs, and volantd when idle.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Vm } from "@volant/contract";
import { Netlink, closeTap, openTap } from "@volant/netlink";
import { type House, openHouse, root } from "../test/vm/house.ts";
import { buildProbePlugin } from "../test/vm/probe-plugin.ts";
import { onInterrupt } from "./interrupt.ts";
import { type BenchResult, median, ratio } from "./result.ts";

const ROUNDS = 7;
const RIVAL_ADDRESS = "192.168.127.200";
const RIVAL_MAC = "02:00:00:00:00:c8";
const RIVAL_TAP = "rival";
/** A connection attempt is given up after this long: a lost SYN is sent again only after a second (RFC 6298). */
const ATTEMPT_MS = 40;
const PAUSE_MS = 5;
/** The descriptor on which volantd hands the boot image to its hypervisor. */
const BOOT_IMAGE_FD = 4;
const LIMIT_MS = 60_000;

/** One attempt at the page: true once a byte of an answer has come. */
function tryPage(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(80, address);
    const finish = (answered: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answered);
    };
    // Once connected the answer may take its time: the guest's CPU is busy.
    const timer = setTimeout(() => finish(false), ATTEMPT_MS);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.write("GET / HTTP/1.0\r\n\r\n");
    });
    socket.once("data", () => finish(true));
    socket.once("error", () => finish(false));
    socket.once("close", () => finish(false));
  });
}

/** Milliseconds from `started` to the first byte of the page at `address`. */
async function firstByte(address: string, started: number): Promise<number> {
  while (performance.now() - started < LIMIT_MS) {
    if (await tryPage(address)) return performance.now() - started;
    await delay(PAUSE_MS);
  }
  throw new Error(`no page at ${address} within ${LIMIT_MS} ms`);
}

async function post(path: string, body: unknown): Promise<Vm> {
  const response = await fetch(`http://127.0.0.1:7777/api/v1/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 201, await response.clone().text());
  return (await response.json()) as Vm;
}

/** Unpacks the base archive of the boot image that a running hypervisor of ours was given: the rival loads the same modules. */
function unpackBase(pid: number, tree: string): void {
  const image = openSync(`/proc/${pid}/fd/${BOOT_IMAGE_FD}`, "r");
  try {
    // cpio reads to the first archive's end; the plugin's follows it.
    execFileSync("busybox", ["cpio", "-i", "-d"], { cwd: tree, stdio: [image, "ignore", "ignore"] });
  } finally {
    closeSync(image);
  }
}

/** Archive of a guest whose init is a shell script that does what any init must, and starts the web server. */
function buildBareGuest(directory: string, pid: number): string {
  const tree = join(directory, "bare");
  for (const folder of ["bin", "www"]) mkdirSync(join(tree, folder), { recursive: true });
  unpackBase(pid, tree);
  const busybox = execFileSync("which", ["busybox"], { encoding: "utf8" }).trim();
  copyFileSync(busybox, join(tree, "bin/busybox"));
  symlinkSync("busybox", join(tree, "bin/sh"));
  writeFileSync(join(tree, "www/index.html"), "probe\n");
  const init = [
    "#!/bin/busybox sh",
    "busybox mount -t proc proc /proc",
    "busybox mount -t sysfs sys /sys",
    "busybox mount -t devtmpfs dev /dev",
    "for module in /.volant/modules/*.ko; do busybox insmod $module 2>/dev/null; done",
    "busybox ip link set lo up",
    `busybox ip addr add ${RIVAL_ADDRESS}/24 dev eth0`,
    "busybox ip link set eth0 up",
    "busybox ip route add default via 192.168.127.1",
    "busybox httpd -p 80 -h /www",
    "while true; do busybox sleep 1000; done",
  ];
  rmSync(join(tree, ".volant/init"));
  writeFileSync(join(tree, ".volant/init"), `${init.join("\n")}\n`, { mode: 0o755 });
  const names = execFileSync("find", ["."], { cwd: tree });
  const archive = execFileSync("busybox", ["cpio", "-o", "-H", "newc"], {
    cwd: tree,
    input: names,
    stdio: ["pipe", "pipe", "ignore"],
    maxBuffer: 256 * 1024 * 1024,
  });
  const path = join(directory, "bare.cpio");
  writeFileSync(path, archive);
  return path;
}

/** The arguments of a running hypervisor of ours, with every descriptor that volantd handed over replaced by what a person would write. */
function rivalArguments(pid: number, initrd: string, log: string): string[] {
  const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1);
  const kernel = join(root, ".cache/volant/kernel/vmlinux");
  return words.map((word, index) => {
    const option = words[index - 1];
    // Without volantd's mark: what bears it and has no row is an orphan, and volantd ends it.
    if (option === "-name") return "guest=rival";
    if (option === "-kernel") return kernel;
    if (option === "-initrd") return initrd;
    if (option === "-chardev") {
      const id = /id=(\w+)/.exec(word)?.[1] ?? "";
      return id === "serial" ? `null,id=serial,logfile=${log}` : `null,id=${id}`;
    }
    if (option === "-add-fd") return word.replace(/fd=\d+/, "fd=4");
    if (option === "-netdev") return word.replace(/fd=\d+/, "fd=3");
    if (option === "-device") return word.replace(/mac=[0-9a-f:]+/, `mac=${RIVAL_MAC}`);
    return word;
  });
}

async function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}

async function measureRival(args: readonly string[]): Promise<number> {
  const [program = "", ...rest] = args;
  const tap = await openTap(RIVAL_TAP);
  const nothing = openSync("/dev/null", "w");
  const started = performance.now();
  const child = spawn(program, rest, { stdio: ["ignore", "ignore", "inherit", tap, nothing] });
  await closeTap(tap);
  closeSync(nothing);
  try {
    return await firstByte(RIVAL_ADDRESS, started);
  } finally {
    await endProcess(child);
  }
}

function readStatus(text: string, field: string): number {
  const value = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(text)?.[1];
  assert.ok(value !== undefined, `${field} in ${text.slice(0, 200)}`);
  return Number(value) / 1024;
}

async function measureIdle(house: House): Promise<number[]> {
  const samples: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    await delay(1000);
    samples.push(readStatus(readFileSync(`/proc/${house.volantdPid}/status`, "utf8"), "VmRSS"));
  }
  return samples;
}

/** Runs in the caller's network namespace, which must be one of its own. */
export async function benchBoot(): Promise<BenchResult[]> {
  const house = await openHouse();
  const uninterrupted = onInterrupt(() => house.close());
  const netlink = await Netlink.open();
  const ours: number[] = [];
  const theirs: number[] = [];
  const agentRss: number[] = [];
  try {
    const idle = await measureIdle(house);
    const directory = join(house.directory, "probe");
    mkdirSync(directory);
    await house.volarDone("plugins", "install", buildProbePlugin(directory));
    await netlink.taps.create({ name: RIVAL_TAP, attach: { master: "vbr0", alias: "bench", up: true } });
    await netlink.neighbours.set({ link: "vbr0", address: RIVAL_ADDRESS, mac: RIVAL_MAC, permanent: true });
    let rivalArgs: readonly string[] | undefined;
    // One round more than counted: the first warms the page cache for both.
    for (let round = 0; round <= ROUNDS; round += 1) {
      const name = `bench-${round}`;
      const started = performance.now();
      const vm = await post("vms", { name, plugin: "probe" });
      const create = await firstByte(vm.ip_address, started);
      const status = await (await fetch(`http://${vm.ip_address}/cgi-bin/read?/proc/1/status`)).text();
      const rss = readStatus(status, "VmRSS");
      const [pid] = await house.hypervisors();
      assert.ok(pid !== undefined);
      rivalArgs ??= rivalArguments(pid, buildBareGuest(house.directory, pid), join(house.directory, "rival.log"));
      await house.volarDone("vms", "delete", name);
      const bare = await measureRival(rivalArgs);
      process.stderr.write(`round ${round}: ${create.toFixed(0)} ms, bare ${bare.toFixed(0)} ms\n`);
      if (round === 0) continue;
      ours.push(create);
      theirs.push(bare);
      agentRss.push(rss);
    }
    const binary = statSync(join(root, "kestrel/target/x86_64-unknown-linux-gnu/release/kestrel")).size / 1024 / 1024;
    return [
      {
        name: "VM create to first HTTP byte",
        unit: "ms",
        ours,
        rival: { name: "bare busybox init, QEMU by hand", samples: theirs },
        target: "at most 1.10 × the rival",
        ok: ratio(ours, theirs) <= 1.1,
      },
      { name: "agent binary", unit: "MiB", ours: [binary], target: "at most 3 MiB", ok: binary <= 3 },
      { name: "agent resident", unit: "MiB", ours: agentRss, target: "at most 4 MiB", ok: median(agentRss) <= 4 },
      { name: "volantd idle, resident", unit: "MiB", ours: idle, target: "written down", ok: true },
    ];
  } finally {
    await netlink.links.delete(RIVAL_TAP).catch(() => undefined);
    await netlink.close();
    uninterrupted();
    await house.close();
    rmSync(house.directory, { recursive: true, force: true });
  }
}
