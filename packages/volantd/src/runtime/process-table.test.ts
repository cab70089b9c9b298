import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import test from "node:test";
import { isRunning, KnownProcesses, scanProcesses, startTicksOf } from "./process-table.ts";

/** Runs `work` while this process may open no further file. */
async function withoutDescriptors(work: () => void | Promise<void>): Promise<void> {
  const limits = readFileSync("/proc/self/limits", "latin1");
  const [, soft = "", hard = ""] = /^Max open files\s+(\S+)\s+(\S+)/m.exec(limits) ?? [];
  const set = (limit: string) => execFileSync("prlimit", [`--nofile=${limit}:${hard}`, "--pid", String(process.pid)]);
  set("200");
  const opened: number[] = [];
  try {
    assert.throws(
      () => {
        for (;;) opened.push(openSync("/dev/null", "r"));
      },
      { code: "EMFILE" },
    );
    await work();
  } finally {
    for (const fd of opened) closeSync(fd);
    set(soft);
  }
}

test(
  "a process that can't be looked at for want of a descriptor is an error, and not an end",
  { skip: process.platform !== "linux" },
  async () => {
    const startTicks = startTicksOf(process.pid);
    assert.ok(startTicks !== undefined);
    const self = { pid: process.pid, startTicks };
    assert.ok(isRunning(self));
    assert.equal(isRunning({ ...self, startTicks: startTicks + 1n }), false);
    await withoutDescriptors(async () => {
      assert.throws(() => isRunning(self), { code: "EMFILE" });
      await assert.rejects(scanProcesses({ installation: "abcdef01", programs: [], uidOf: () => 0 }), {
        code: "EMFILE",
      });
    });
  },
);

test(
  "a process that was found before and is known to live is not read again, and is gone with its entry in the process table",
  { skip: process.platform !== "linux" },
  async () => {
    const scan = { installation: "abcdef01", programs: [], uidOf: () => 0 };
    const known = (pid: number) => {
      const all = new KnownProcesses();
      all.ours.set(pid, { vmId: 1, generation: 1, pid, startTicks: 1n, role: "hypervisor" as const });
      return all;
    };
    const lives = { ...scan, isKnownToLive: () => true };
    assert.deepEqual(
      (await scanProcesses(lives, known(process.pid))).map(({ pid }) => pid),
      [process.pid],
    );
    // It is none of these programs, as reading it tells.
    assert.deepEqual(await scanProcesses(scan, known(process.pid)), []);
    const { pid } = spawnSync("true");
    assert.deepEqual(await scanProcesses(lives, known(pid)), []);
  },
);

test(
  "after two whole scans others look at what is known alone: at what was found and at what this program has started",
  { skip: process.platform !== "linux" },
  async () => {
    const known = new KnownProcesses();
    const start = () => spawn("sh", ["-c", "read line", "volant:abcdef01:1:2"]);
    const scan = { installation: "abcdef01", programs: ["sh"], uidOf: () => 0 };
    const pids = async (isWhole: boolean) => (await scanProcesses({ ...scan, isWhole }, known)).map((one) => one.pid);
    // They wait for a line.
    const children = [start()];
    try {
      assert.deepEqual(await pids(true), [children[0]?.pid]);
      children.push(start());
      const both = children.map(({ pid }) => pid);
      assert.deepEqual(await pids(false), both, "one whole scan is not enough");
      await pids(true);
      assert.deepEqual(await pids(false), both);
      children.push(start());
      const third = children[2]?.pid ?? 0;
      assert.deepEqual(await pids(false), both, "nobody has said that there is a third");
      known.started(third);
      assert.deepEqual(await pids(false), [...both, third]);
      known.started(third);
      assert.deepEqual(await pids(false), [...both, third], "it was found before its starter said so");
    } finally {
      for (const child of children) child.kill("SIGKILL");
    }
  },
);

test(
  "a process that was started and is not ours yet is looked at until it is, or is gone",
  { skip: process.platform !== "linux" },
  async () => {
    const known = new KnownProcesses();
    const scan = { installation: "abcdef01", programs: ["sh"], uidOf: () => 0 };
    const elsewhere = { ...scan, programs: ["none-of-these"] };
    for (let round = 0; round < 2; round += 1) await scanProcesses(scan, known);
    const child = spawn("sh", ["-c", "read line", "volant:abcdef01:1:2"]);
    const { pid = 0 } = child;
    known.started(pid);
    assert.deepEqual(await scanProcesses({ ...elsewhere, isWhole: false }, known), []);
    assert.deepEqual(
      (await scanProcesses({ ...scan, isWhole: false }, known)).map((one) => one.pid),
      [pid],
    );
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await ended;
    assert.deepEqual(await scanProcesses({ ...scan, isWhole: false }, known), []);
    assert.deepEqual(known.candidates, []);
  },
);

test(
  "what one scan finds while another is under way is not forgotten when that one ends",
  { skip: process.platform !== "linux" },
  async () => {
    const known = new KnownProcesses();
    const scan = { installation: "abcdef01", programs: ["sh"], uidOf: () => 0, readsATurn: 1 };
    for (let round = 0; round < 2; round += 1) await scanProcesses(scan, known);
    const slow = scanProcesses(scan, known);
    // It has listed the host's processes by then.
    await new Promise(setImmediate);
    const child = spawn("sh", ["-c", "read line", "volant:abcdef01:1:2"]);
    try {
      known.started(child.pid ?? 0);
      const quick = scanProcesses({ ...scan, isWhole: false }, known);
      await Promise.all([slow, quick]);
      const again = await scanProcesses({ ...scan, isWhole: false }, known);
      assert.deepEqual(
        again.map(({ pid }) => pid),
        [child.pid],
      );
    } finally {
      child.kill("SIGKILL");
    }
  },
);
