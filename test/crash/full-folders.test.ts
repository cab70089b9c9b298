/** Full disks, really full: a file system under the runtime folder and one under the logs. A start waits and says why; what runs goes on without its log. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace } from "../namespace.ts";
import { StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url, "mounts");

const folder = mkdtempSync(join(tmpdir(), "full-"));
const run = join(folder, "run");
const logs = join(folder, "logs");
let at: StandInHouse;

before(async () => {
  // A console that is flooded takes up to 4 MiB of the runtime folder, all of which is moved to the logs, where the audit log is as well.
  for (const [disk, size] of [
    [run, "16m"],
    [logs, "6m"],
  ] as const) {
    mkdirSync(disk);
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size},nr_inodes=200`, "none", disk]);
  }
  at = await StandInHouse.open({ VOLANT_RUNTIME_DIR: run, VOLANT_LOG_DIR: logs });
});

after(async () => {
  await at?.close();
  for (const disk of [run, logs]) execFileSync("umount", [disk]);
  rmSync(folder, { recursive: true });
});

function untilFull(fill: () => void): void {
  assert.throws(
    () => {
      for (;;) fill();
    },
    { code: "ENOSPC" },
  );
}

/** Leaves room for nothing: no byte, and no further file. @returns what makes room again */
function fill(disk: string): () => void {
  const fillers = join(disk, "fillers");
  mkdirSync(fillers);
  const file = openSync(join(fillers, "bytes"), "a");
  untilFull(() => writeSync(file, Buffer.alloc(4096)));
  closeSync(file);
  let count = 0;
  untilFull(() => closeSync(openSync(join(fillers, String(count++)), "wx")));
  return () => rmSync(fillers, { recursive: true });
}

test("on a full disk under the runtime folder a VM waits and says so, one that runs goes on and its end is known, and the other starts once there is room", async () => {
  await at.create("steady");
  await at.create("leaving", "standin.poweroff_after_ms=15000");
  const steady = await at.untilUp("steady");
  await at.untilUp("leaving");
  const makeRoom = fill(run);
  await at.create("late");
  const late = await at.untilVm("late", ({ reason = "" }) => /disk is full/.test(reason));
  assert.equal(late.status, "pending");
  const left = await at.untilVm("leaving", ({ status }) => status === "stopped" || status === "crashed");
  assert.deepEqual([left.status, left.reason], ["stopped", "the guest powered off"]);
  const now = await at.ask<Vm>(200, "GET", "vms/steady");
  assert.deepEqual([now.status, now.pid, now.reason], ["running", steady.pid, undefined]);
  makeRoom();
  await at.untilUp("late");
  for (const name of ["late", "leaving", "steady"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});

test("on a full disk under the logs VMs start, run and end as ever, and logs go on once there is room", async () => {
  const makeRoom = fill(logs);
  const from = at.house.log.length;
  await at.create("chatty", "standin.flood_console");
  const { id } = await at.untilVm("chatty", ({ status }) => status === "running");
  await at.create("plain");
  await at.untilUp("plain");
  await at.house.logged(/the console's log can't be moved to its archive.*no space left/i, from);
  await at.untilUp("plain");
  makeRoom();
  const archive = join(logs, `vm-${id}.console.log`);
  const deadline = performance.now() + 120_000;
  while (!existsSync(archive) || statSync(archive).size === 0) {
    if (performance.now() > deadline) throw new Error(`no ${archive}: ${at.house.log.slice(-2000)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  for (const name of ["chatty", "plain"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});

test("a VM is deleted on full disks, and leaves nothing", async () => {
  await at.create("going");
  await at.untilUp("going");
  const room = [fill(run), fill(logs)];
  await at.delete("going");
  for (const makeRoom of room) makeRoom();
  assert.deepEqual(at.leaks(), []);
});
