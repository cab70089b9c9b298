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

test("a stranger is one that was none of ours in two whole scans, of one start time; whoever is started is none", () => {
  const known = new KnownProcesses();
  known.wholeScan(new Map([[5, 1n]]));
  assert.equal(known.isStranger(5), false, "it may be about to become a program of ours");
  known.wholeScan(
    new Map([
      [5, 2n],
      [6, 1n],
    ]),
  );
  assert.equal(known.isStranger(5), false, "another process has its pid");
  known.wholeScan(
    new Map([
      [5, 2n],
      [6, 1n],
    ]),
  );
  assert.deepEqual([known.isStranger(5), known.isStranger(6)], [true, true]);
  known.started(5);
  assert.deepEqual([known.isStranger(5), known.isStranger(6)], [false, true]);
  known.wholeScan(new Map([[5, 2n]]));
  assert.deepEqual([known.isStranger(5), known.isStranger(6)], [false, false]);
});

test(
  "strangers are looked at by whole scans alone, and all others by each",
  { skip: process.platform !== "linux" },
  async () => {
    const known = new KnownProcesses();
    // It waits for a line.
    const child = spawn("sh", ["-c", "read line", "volant:abcdef01:1:2"]);
    try {
      const { pid = 0 } = child;
      const scan = { installation: "abcdef01", programs: ["sh"], uidOf: () => 0 };
      const pids = async (isWhole: boolean) => (await scanProcesses({ ...scan, isWhole }, known)).map((one) => one.pid);
      const elsewhere = { ...scan, programs: ["none-of-these"] };
      assert.deepEqual(await pids(false), [pid]);
      for (let round = 0; round < 2; round += 1) assert.deepEqual(await scanProcesses(elsewhere, known), []);
      assert.deepEqual(await pids(false), []);
      known.started(pid);
      assert.deepEqual(await pids(false), [pid]);
      for (let round = 0; round < 2; round += 1) assert.deepEqual(await scanProcesses(elsewhere, known), []);
      assert.deepEqual(await pids(true), [pid]);
      assert.deepEqual(await pids(false), [pid]);
    } finally {
      child.kill("SIGKILL");
    }
  },
);
