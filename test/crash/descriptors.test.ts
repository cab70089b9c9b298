/** volantd that may not open further files: VMs that run are left alone, further ones wait and say why, and all comes up when it may. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace } from "../namespace.ts";
import { within } from "../patience.ts";
import { isUp, StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

const PLENTY = 20_000;
/** As docs/limits.md says. */
const PER_VM = 2;
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open();
});

after(async () => {
  await at?.close();
});

function openFiles(): number {
  return readdirSync(`/proc/${at.house.volantdPid}/fd`).length;
}

function setLimit(limit: number): void {
  execFileSync("prlimit", [`--nofile=${limit}:${PLENTY}`, "--pid", String(at.house.volantdPid)]);
}

async function allRunning(...names: string[]): Promise<void> {
  await at.untilAttached((vms) => names.every((name) => vms.some((vm) => vm.name === name && isUp(vm))));
}

interface Refusal {
  readonly error: string;
  readonly code: string;
  readonly hint?: string;
}

test("a VM that nobody talks to costs volantd two file descriptors", async () => {
  await at.create("first");
  await allRunning("first");
  const before = openFiles();
  const names = Array.from({ length: 10 }, (_none, index) => `more-${index}`);
  for (const name of names) await at.create(name);
  await allRunning(...names);
  const each = (openFiles() - before) / names.length;
  assert.ok(each <= PER_VM + 0.5 && each >= PER_VM - 0.5, `${each} each`);
  for (const name of [...names, "first"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});

test("with descriptors for what runs alone a VM is refused in a sentence, one that is to start again waits and says why, and both come up when there are more", async () => {
  await at.create("steady");
  await at.create("again");
  await allRunning("steady", "again");
  const [steady] = (await at.list()).filter(({ name }) => name === "steady");
  await at.ask(200, "POST", "vms/again/stop");
  setLimit(openFiles() + 100);
  const refusal = await at.ask<Refusal>(503, "POST", "vms", { name: "late", plugin: "probe", memory_mb: 96 });
  assert.equal(refusal.code, "exhausted");
  assert.match(refusal.error, /^volantd has \d+ files open and may have \d+/);
  assert.match(refusal.hint ?? "", /LimitNOFILE/);
  await at.ask(200, "POST", "vms/again/start");
  await at.until((vms) =>
    vms.some(({ name, status, reason }) => name === "again" && status === "pending" && /files open/.test(reason ?? "")),
  );
  const now = await at.ask<Vm>(200, "GET", "vms/steady");
  assert.deepEqual([now.status, now.pid, now.reason], ["running", steady?.pid, undefined]);
  setLimit(PLENTY);
  await at.create("late");
  await allRunning("steady", "again", "late");
  for (const name of ["steady", "again", "late"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});

test("clients for whom there is no descriptor are cut off, and volantd answers again once others have gone", async () => {
  await at.create("served");
  await allRunning("served");
  const [before] = await at.list();
  setLimit(openFiles() + 2);
  const ends: Promise<unknown>[] = [];
  const clients = Array.from({ length: 20 }, () => {
    const client = connect(7777, "127.0.0.1");
    ends.push(new Promise((resolve) => client.on("error", () => {}).once("close", resolve)));
    return client;
  });
  await within(Promise.race(ends), "the end of a connection that volantd has no descriptor for");
  for (const client of clients) client.destroy();
  await within(Promise.all(ends), "the end of all connections");
  setLimit(PLENTY);
  await allRunning("served");
  assert.equal((await at.list())[0]?.pid, before?.pid);
  await at.delete("served");
  assert.deepEqual(at.leaks(), []);
});

/** Processor time that volantd has used, in hundredths of a second: utime and stime (proc_pid_stat(5)). */
function processorTicks(): number {
  const stat = readFileSync(`/proc/${at.house.volantdPid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

test("clients that can't even be turned away don't make volantd spin: it goes slowly, looks after its VMs, and lets them in once it may", async () => {
  await at.create("watched");
  await allRunning("watched");
  const from = at.house.log.length;
  setLimit(10);
  const clients = Array.from({ length: 3 }, () => connect(7777, "127.0.0.1").on("error", () => {}));
  await at.house.logged(/no descriptor is left for a client that waits/, from);
  const [ticks, sinceMs] = [processorTicks(), performance.now()];
  // Long enough for a hundredth of a second not to matter.
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const busy = (processorTicks() - ticks) / ((performance.now() - sinceMs) / 10);
  assert.ok(busy < 0.5, `${busy} of a processor`);
  setLimit(PLENTY);
  await at.house.logged(/there are descriptors again/, from);
  for (const client of clients) client.destroy();
  await allRunning("watched");
  await at.delete("watched");
  assert.deepEqual(at.leaks(), []);
});

test("with no descriptor at all volantd neither ends nor takes a VM for dead, and goes on with the same processes", async () => {
  await at.create("staying");
  await at.create("killed");
  await allRunning("staying", "killed");
  const before = await at.list();
  const from = at.house.log.length;
  // What is open stays open; nothing more can be: not a look at /proc, not a connection.
  setLimit(10);
  const answered = await fetch("http://127.0.0.1:7777/healthz", { signal: AbortSignal.timeout(5000) }).then(
    ({ status }) => status,
    () => "refused",
  );
  const [{ pid: other = 0 } = {}] = before.filter(({ name }) => name === "killed");
  process.kill(other, "SIGKILL");
  await at.house.logged(/the host can't be observed/, from);
  setLimit(PLENTY);
  await at.until((vms) => vms.some(({ name, status }) => name === "killed" && status === "crashed"));
  await allRunning("staying");
  const pidOf = (vms: readonly Vm[]) => vms.find(({ name }) => name === "staying")?.pid;
  assert.equal(pidOf(await at.list()), pidOf(before), String(answered));
  assert.doesNotMatch(at.house.log.slice(from), /steady.*crashed/);
  for (const name of ["staying", "killed"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});
