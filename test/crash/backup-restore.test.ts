/**
 * `volar backup` while volantd works, and `volar restore` with VMs that run: what goes on, what is started anew, what goes, and that nothing runs
 * twice.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace } from "../namespace.ts";
import { findProcesses, vmEntries } from "../vm/house.ts";
import { StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

const folder = mkdtempSync(join(tmpdir(), "backup-"));
const file = join(folder, "volant.backup");
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open();
});

after(async () => {
  await at?.close();
  rmSync(folder, { recursive: true });
});

const isUp = ({ status, agent }: Vm): boolean => status === "running" && agent.attached;

async function running(...names: string[]): Promise<Map<string, Vm>> {
  await at.untilAttached((vms) => names.every((name) => vms.some((vm) => vm.name === name && isUp(vm))));
  return new Map((await at.list()).map((vm) => [vm.name, vm]));
}

/** Pids of a VM's hypervisors, read from the kernel. */
function processesOf(id: number): number[] {
  return findProcesses(`volant:${at.installation}:${id}:`);
}

interface Facts {
  readonly vms: number;
  readonly installation: string;
}

test("a backup is whole and consistent while VMs come and go, is its owner's alone, and replaces nothing unasked", async () => {
  let isOver = false;
  const busy = (async () => {
    for (let round = 0; !isOver; round += 1) {
      await at.create(`busy-${round}`);
      await at.delete(`busy-${round}`);
    }
  })();
  const path = join(folder, "busy.backup");
  const facts = await at.house.volarJson<Facts>("backup", path);
  assert.equal(facts.installation, at.installation);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const bytes = readFileSync(path);
  const again = await at.house.volar("backup", path);
  assert.deepEqual([again.code, /exists already/.test(again.stderr)], [1, true]);
  assert.deepEqual(readFileSync(path), bytes);
  await at.house.volarDone("backup", path, "--force");
  isOver = true;
  await busy;
  assert.deepEqual(at.leaks(), []);
});

test("a restore keeps, restarts, stops and removes what it says, and nothing ever runs twice or gets an id twice", async () => {
  const names = ["keeps", "changes", "goes", "halts"];
  for (const name of names) await at.create(name);
  await running(...names);
  await at.ask(200, "POST", "vms/halts/stop");
  await at.house.volarDone("backup", file);

  await at.ask(200, "POST", "vms/keeps/restart");
  await at.ask(200, "PATCH", "vms/changes/config", { resources: { memory_mb: 128 } });
  await at.ask(200, "POST", "vms/changes/restart");
  await at.ask(200, "POST", "vms/halts/start");
  await at.delete("goes");
  const late = await at.create("late");
  const before = await running("keeps", "changes", "halts", "late");
  const pidOf = (name: string): number => before.get(name)?.pid ?? 0;
  assert.equal(before.get("changes")?.memory_mb, 128);

  const early = await at.house.volar("restore", file, "--force");
  assert.deepEqual([early.code, /volantd is running on the database/.test(early.stderr)], [1, true], early.stderr);
  await at.house.stopVolantd();
  const refused = await at.house.volar("restore", file);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /end and remove.* late; restart.* changes; stop halts/);
  const outcome = await at.house.volarJson<Record<string, unknown>>("restore", file, "--dry-run");
  assert.deepEqual(
    [outcome["restored"], outcome["go_on"], outcome["restart"], outcome["stop"], outcome["ended"], outcome["remove"]],
    [false, ["keeps"], ["changes"], ["halts"], ["goes"], ["late"]],
  );
  for (const name of before.keys()) assert.deepEqual(processesOf(before.get(name)?.id ?? 0), [pidOf(name)]);

  const restored = await at.house.volarJson<Record<string, unknown>>("restore", file, "--force");
  assert.deepEqual(restored["go_on"], ["keeps"]);
  assert.equal(statSync(String(restored["kept"])).isFile(), true);
  await at.house.startVolantd();
  const isLikeBackup = (vms: readonly Vm[]): boolean =>
    vms.length === 4 &&
    vms.every((vm) =>
      vm.name === "keeps" || vm.name === "changes"
        ? isUp(vm)
        : vm.status === (vm.name === "halts" ? "stopped" : "crashed"),
    );
  await at.untilAttached(isLikeBackup);
  const now = new Map((await at.list()).map((vm) => [vm.name, vm]));
  assert.equal(now.get("keeps")?.pid, pidOf("keeps"), "what runs as the backup has it is not touched");
  assert.notEqual(now.get("changes")?.pid, pidOf("changes"));
  assert.equal(now.get("changes")?.memory_mb, 96);
  for (const vm of now.values()) {
    assert.deepEqual(processesOf(vm.id), vm.pid === undefined ? [] : [vm.pid], `${vm.name} runs once or not at all`);
  }
  const deadline = Date.now() + 60_000;
  while (processesOf(late.id).length > 0) {
    if (Date.now() > deadline) throw new Error(`what is in no backup still runs: ${processesOf(late.id).join(", ")}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const next = await at.create("next");
  assert.ok(next.id > late.id, `id ${next.id} after ${late.id}`);
  // One that has ended is started when it is asked for, as ever.
  await at.ask(200, "POST", "vms/goes/start");
  await running("goes", "next");
  for (const { name } of await at.list()) await at.delete(name);
  // What a workload has said is its user's, and bears a name that no row has any more: nobody removes it.
  const logs = at.house.environment["VOLANT_LOG_DIR"] ?? "";
  const kept = vmEntries(logs);
  assert.ok(kept.length > 0 && kept.every((name) => name.startsWith("late")), kept.join(", "));
  for (const name of kept) rmSync(join(logs, name), { recursive: true });
  assert.deepEqual(at.leaks(), []);
});

test("after a damaged database, a restore brings back what runs without touching it", async () => {
  await at.create("steady");
  const pid = (await running("steady")).get("steady")?.pid;
  await at.house.volarDone("backup", file, "--force");
  await at.house.stopVolantd("SIGKILL");
  const database = at.house.environment["VOLANT_DB_PATH"] ?? "";
  for (const suffix of ["-wal", "-shm"]) rmSync(database + suffix, { force: true });
  writeFileSync(database, Buffer.alloc(65_536, 0x5a));
  await assert.rejects(at.house.startVolantd(), /file is not a database[\s\S]*volar restore/);
  const restored = await at.house.volarJson<Record<string, unknown>>("restore", file);
  assert.match(String(restored["unreadable"]), /not a database/);
  assert.deepEqual(readFileSync(String(restored["kept"])), Buffer.alloc(65_536, 0x5a));
  await at.house.startVolantd();
  assert.equal((await running("steady")).get("steady")?.pid, pid);
  await at.delete("steady");
  assert.deepEqual(at.leaks(), []);
});

test("what is no whole backup is refused, and changes nothing", async () => {
  await at.house.volarDone("backup", file, "--force");
  await at.house.stopVolantd();
  const database = at.house.environment["VOLANT_DB_PATH"] ?? "";
  const bytes = readFileSync(database);
  const part = join(folder, "part");
  writeFileSync(part, readFileSync(file));
  truncateSync(part, Math.floor(statSync(file).size / 2 / 4096) * 4096);
  const other = join(folder, "other");
  writeFileSync(other, "not a database");
  for (const [path, exitCode, sentence] of [
    [part, 2, /part can't be used: /],
    [other, 2, /other can't be used: file is not a database/],
    [join(folder, "none"), 1, /there is no file/],
  ] as const) {
    const { code, stderr } = await at.house.volar("restore", path, "--force");
    assert.equal(code, exitCode, stderr);
    assert.match(stderr, sentence);
  }
  assert.deepEqual(readFileSync(database), bytes);
  await at.house.startVolantd();
});
