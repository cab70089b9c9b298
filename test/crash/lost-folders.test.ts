/** Folders that somebody removes under a volantd that runs: the runtime folder, logs, images. Each is said or made anew, and nothing is left of a VM. */
import assert from "node:assert/strict";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace } from "../namespace.ts";
import { vmEntries } from "../vm/house.ts";
import { StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

const LOST = /^its runtime folder was removed: volar vms restart \S+ makes a new one$/;
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open();
});

after(async () => {
  await at?.close();
});

function directory(setting: string): string {
  return at.house.environment[setting] ?? "";
}

function isLost({ status, reason = "" }: Vm): boolean {
  return status === "running" && LOST.test(reason);
}

async function running(name: string, cmdline = ""): Promise<Vm> {
  await at.create(name, cmdline);
  return await at.untilUp(name);
}

test("a VM whose runtime folder was removed goes on and says so, over a restart of volantd, and a restart of the VM makes it whole", async () => {
  const before = await running("bare");
  rmSync(join(directory("VOLANT_RUNTIME_DIR"), String(before.id)), { recursive: true });
  await at.untilVm("bare", isLost);
  await at.house.stopVolantd("SIGKILL");
  await at.house.startVolantd();
  const found = await at.untilVm("bare", isLost);
  assert.equal(found.pid, before.pid, "the same process");
  await at.ask(200, "POST", "vms/bare/restart");
  const after = await at.untilUp("bare");
  assert.notEqual(after.pid, before.pid);
  await at.delete("bare");
  assert.deepEqual(at.leaks(), []);
});

test("VMs of a runtime directory that is gone as a whole can be deleted and restarted, whether or not volantd was started anew", async () => {
  for (const name of ["one", "two", "three"]) await running(name);
  // It has two consoles: what the last run printed is kept apart from this one's.
  const { pid } = await at.ask<Vm>(200, "GET", "vms/one");
  await at.ask(200, "POST", "vms/one/restart");
  await at.untilUp("one", (vm) => vm.pid !== pid);
  assert.ok(vmEntries(directory("VOLANT_LOG_DIR")).some((name) => name.endsWith(".previous.log")));
  rmSync(directory("VOLANT_RUNTIME_DIR"), { recursive: true });
  for (const name of ["one", "two", "three"]) await at.untilVm(name, isLost);
  await at.delete("one");
  await at.house.stopVolantd("SIGKILL");
  rmSync(directory("VOLANT_RUNTIME_DIR"), { recursive: true, force: true });
  await at.house.startVolantd();
  for (const name of ["two", "three"]) await at.untilVm(name, isLost);
  await at.delete("two");
  await at.ask(200, "POST", "vms/three/restart");
  await at.untilUp("three");
  await at.delete("three");
  assert.deepEqual(at.leaks(), []);
});

test("a guest that powers itself off without its folder has stopped, and did not crash", async () => {
  const { id } = await at.create("leaving", "standin.poweroff_after_ms=15000");
  await at.untilVm("leaving", ({ status }) => status === "running");
  rmSync(join(directory("VOLANT_RUNTIME_DIR"), String(id)), { recursive: true });
  const { status, reason } = await at.untilVm("leaving", (vm) => vm.status === "stopped" || vm.status === "crashed");
  assert.deepEqual([status, reason], ["stopped", "the guest powered off"]);
  await at.delete("leaving");
  assert.deepEqual(at.leaks(), []);
});

test("a log directory that was removed is made anew by what is logged next", async () => {
  const logs = directory("VOLANT_LOG_DIR");
  await running("quiet");
  rmSync(logs, { recursive: true });
  await at.create("chatty", "standin.flood_console");
  const { id } = await at.untilVm("chatty", ({ status }) => status === "running");
  await existing(join(logs, `vm-${id}.console.log`));
  await at.untilUp("quiet");
  for (const name of ["quiet", "chatty"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});

async function existing(path: string): Promise<void> {
  const deadline = performance.now() + 120_000;
  while (!existsSync(path)) {
    if (performance.now() > deadline) throw new Error(`${path} is not made; volantd said ${at.house.log.slice(-2000)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test("without its image a VM says what to do, and starts once that is done", async () => {
  await running("imaged");
  const work = directory("VOLANT_WORK_DIR");
  rmSync(join(work, "images"), { recursive: true });
  await at.ask(200, "POST", "vms/imaged/restart");
  const { reason = "" } = await at.untilVm("imaged", (vm) => /initramfs|image/.test(vm.reason ?? ""));
  assert.match(reason, /volar plugins install --replace/);
  await at.house.volarDone("plugins", "install", "--replace", join(work, "manifest.json"));
  await at.untilUp("imaged");
  await at.delete("imaged");
  assert.deepEqual(at.leaks(), []);
});
