/**
 * volantd's database on a disk that fills up, is locked by another program, or fails: every request that would write is refused in a sentence, VMs
 * and volantd go on, and all is well again once the cause is gone. The faults are real ones: a full tmpfs, another connection, a log that the
 * kernel lets nobody write.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace } from "../namespace.ts";
import { runProgram, testedPrograms } from "../vm/house.ts";
import { StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url, "mounts");

const LIMIT_MS = 60_000;
/** statfs(2). */
const EXT4_SUPER_MAGIC = 0xef53;
const folder = mkdtempSync(join(tmpdir(), "faults-"));
const disk = join(folder, "disk");
const database = join(disk, "state.db");
const filler = join(disk, "filler");
let at: StandInHouse;

before(async () => {
  mkdirSync(disk);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=4m", "none", disk]);
  at = await StandInHouse.open({ VOLANT_DB_PATH: database });
});

after(async () => {
  try {
    await at?.close();
  } catch (error) {
    // A volantd that ended can't delete its VMs.
    await at?.abandon();
    throw error;
  } finally {
    execFileSync("umount", [disk]);
    rmSync(folder, { recursive: true });
  }
});

/** Leaves not a byte. */
function fillDisk(): void {
  const file = openSync(filler, "a");
  try {
    for (let bytes = 65_536; bytes >= 1;) {
      try {
        writeSync(file, Buffer.alloc(bytes));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        bytes = Math.floor(bytes / 2);
      }
    }
  } finally {
    closeSync(file);
  }
  assert.equal(statfsSync(disk).bavail, 0);
}

interface Refusal {
  readonly error: string;
  readonly code: string;
  readonly hint?: string;
}

/** Requests that write, each on its own way through volantd. */
const WRITES: readonly (readonly [method: string, path: string, body?: object])[] = [
  ["POST", "vms", { name: "refused", plugin: "probe", memory_mb: 96 }],
  ["PATCH", "vms/steady/config", { resources: { memory_mb: 128 } }],
  ["POST", "vms/steady/restart"],
  ["POST", "vms/steady/stop"],
  ["DELETE", "vms/steady"],
  ["POST", "plugins/probe/enabled", { enabled: false }],
];

async function allRefused(sentence: RegExp): Promise<void> {
  for (const [method, path, body] of WRITES) {
    const { error, code, hint } = await at.ask<Refusal>(503, method, path, body);
    assert.equal(code, "not_ready", `${method} ${path}`);
    assert.match(error, sentence, `${method} ${path}`);
    assert.ok(hint !== undefined && hint.length > 0, "and says what to do");
  }
}

async function stillThere(before: Vm): Promise<void> {
  const { status } = await fetch("http://127.0.0.1:7777/healthz", { signal: AbortSignal.timeout(LIMIT_MS) });
  assert.equal(status, 200);
  const vm = await at.ask<Vm>(200, "GET", "vms/steady");
  assert.deepEqual([vm.status, vm.pid, vm.reason], [before.status, before.pid, before.reason]);
  process.kill(vm.pid ?? 0, 0);
  assert.deepEqual(
    (await at.list()).map(({ name }) => name).filter((name) => name === "refused"),
    [],
  );
}

async function running(name: string): Promise<Vm> {
  await at.create(name);
  await at.untilAttached((vms) => vms.some((vm) => vm.name === name && vm.status === "running" && vm.agent.attached));
  return at.ask<Vm>(200, "GET", `vms/${name}`);
}

/** Resolves once volantd's log has a line that matches, from `from` on. */
async function logged(pattern: RegExp, from: number): Promise<void> {
  const deadline = Date.now() + LIMIT_MS;
  while (!pattern.test(at.house.log.slice(from))) {
    if (Date.now() > deadline)
      throw new Error(`volantd did not log ${pattern}: ${at.house.log.slice(from).slice(-2000)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("on a full disk writes are refused, VMs go on, and what happened meanwhile is written down once there is room", async () => {
  const steady = await running("steady");
  const doomed = await running("doomed");
  fillDisk();
  await allRefused(/the database .*state\.db can't be (written|read or written): (its disk is full|disk I\/O error)/);
  await stillThere(steady);
  const from = at.house.log.length;
  process.kill(doomed.pid ?? 0, "SIGKILL");
  await logged(/its disk is full/, from);
  await stillThere(steady);
  rmSync(filler);
  await at.until((vms) => vms.some(({ name, status }) => name === "doomed" && status === "crashed"));
  const late = await running("late");
  assert.notEqual(late.id, steady.id);
  await stillThere(steady);
  for (const name of ["late", "doomed", "steady"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});

test("volantd that is killed on a full disk is started again there once there is room, and finds everything", async () => {
  const steady = await running("steady");
  fillDisk();
  await at.house.stopVolantd("SIGKILL");
  rmSync(filler);
  await at.house.startVolantd();
  await at.untilAttached((vms) => vms.every(({ status, agent }) => status === "running" && agent.attached));
  await stillThere(steady);
  await at.delete("steady");
  assert.deepEqual(at.leaks(), []);
});

test("while another program holds the database locked writes are refused at once, and go through afterwards", async () => {
  const steady = await running("steady");
  const shell = new DatabaseSync(database);
  shell.exec("BEGIN IMMEDIATE");
  await allRefused(/another program holds it locked/);
  await stillThere(steady);
  shell.exec("ROLLBACK");
  shell.close();
  await at.delete("steady");
  assert.deepEqual(at.leaks(), []);
});

test("a volantd that can't write its database at its start says so in a sentence and ends", async () => {
  await at.house.stopVolantd();
  execFileSync("mount", ["-o", "remount,ro", disk]);
  const { code, stderr } = await runProgram(join(testedPrograms, "volantd"), [], at.house.environment);
  execFileSync("mount", ["-o", "remount,rw", disk]);
  assert.equal(code, 1);
  assert.match(stderr, /^volantd: the database .*state\.db can't be opened: .*read-only file system/i);
  await at.house.startVolantd();
});

test("where the kernel refuses to write the database's log, requests are refused and VMs go on until it does again", async (t) => {
  await at.close();
  at = await StandInHouse.open();
  const steady = await running("steady");
  const log = `${at.house.environment["VOLANT_DB_PATH"]}-wal`;
  try {
    execFileSync("chattr", ["+i", log], { stdio: "pipe" });
  } catch (error) {
    // Nothing else makes the kernel refuse writes to a file that is open, but for a disk that breaks.
    assert.ok(statfsSync(log).type !== EXT4_SUPER_MAGIC, `chattr on ext4: ${String(error)}`);
    t.diagnostic("not tried: the file system of the folder for temporary files knows no immutable files");
    return;
  }
  try {
    await allRefused(/can't be read or written: disk I\/O error/);
    await stillThere(steady);
  } finally {
    execFileSync("chattr", ["-i", log]);
  }
  await running("late");
  for (const name of ["late", "steady"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});
