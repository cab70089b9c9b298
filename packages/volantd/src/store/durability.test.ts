import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test, { after } from "node:test";
import fc from "fast-check";
import { parseSubnet, type AddressPool } from "../model/address.ts";
import { tapNames } from "../model/tap-name.ts";
import { vmSpec } from "../testing/vm-spec.ts";
import { Durability } from "./durability.ts";
import { VmCache } from "./vm-cache.ts";
import { SqliteStore, type SqliteStoreOptions } from "./sqlite-store.ts";

const directory = mkdtempSync(join(tmpdir(), "durability-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const pool: AddressPool = { subnet: parseSubnet("10.0.0.0/29"), gateway: 0x0a000001 };
let files = 0;

const newVm = (name: string) => ({ spec: vmSpec(name), tapNames: tapNames(name), pool });

function openStore(path: string, sync?: SqliteStoreOptions["sync"]): SqliteStore {
  const now = () => new Date();
  return SqliteStore.open({ path, now, newInstallation: () => "abcdef01", restMs: 0, ...(sync && { sync }) });
}

/** Resolves in a turn that comes after all that is due now. */
async function turns(count = 3): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise(setImmediate);
}

interface Pending {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** A log that is written by a number, and syncs that a test ends. */
function bench(rescue: () => void = () => assert.fail("nothing is to be rescued")) {
  const syncs: Pending[] = [];
  const log = { position: 0 };
  const durability = new Durability({
    position: () => log.position,
    sync: () => new Promise<void>((resolve, reject) => void syncs.push({ resolve, reject })),
    rescue,
  });
  return { durability, log, syncs };
}

test("writes of one turn share one sync, and those that come while it runs share the next", async () => {
  const { durability, log, syncs } = bench();
  const done: string[] = [];
  log.position = 1;
  void durability.settled().then(() => done.push("first"));
  log.position = 2;
  void durability.settled().then(() => done.push("second"));
  await turns();
  assert.equal(syncs.length, 1);
  for (const position of [3, 4]) {
    log.position = position;
    void durability.settled().then(() => done.push(String(position)));
  }
  syncs[0]?.resolve();
  await turns();
  assert.deepEqual(done, ["first", "second"], "what came after the sync began is not durable yet");
  assert.equal(syncs.length, 2);
  syncs[1]?.resolve();
  await turns();
  assert.deepEqual(done, ["first", "second", "3", "4"]);
  await durability.settled();
  assert.equal(syncs.length, 2, "what is durable needs no sync");
  await durability.close();
});

test("who comes in the very turn in which the last sync is over is not forgotten", async () => {
  const { durability, log, syncs } = bench();
  log.position = 1;
  const second = durability.settled().then(async () => {
    log.position = 2;
    const settled = durability.settled();
    await turns();
    assert.equal(syncs.length, 2, "a sync of its own has begun");
    syncs[1]?.resolve();
    await settled;
  });
  await turns();
  syncs[0]?.resolve();
  await second;
  await durability.close();
});

test("what was found at the start is durable only after a sync", async () => {
  const { durability, syncs } = bench();
  let known = false;
  void durability.settled().then(() => (known = true));
  await turns();
  assert.equal(known, false);
  syncs[0]?.resolve();
  await turns();
  assert.equal(known, true);
  await durability.close();
});

test("a sync that fails is never simply tried again: only a rescue makes good for it", async () => {
  let isDiskBroken = true;
  let rescues = 0;
  const { durability, log, syncs } = bench(() => {
    rescues += 1;
    if (isDiskBroken) throw new Error("no");
  });
  log.position = 1;
  const first = durability.settled();
  await turns();
  syncs[0]?.reject(new Error("EIO: i/o error, fdatasync"));
  await assert.rejects(first, { code: "not_ready", message: /made safe on its disk: EIO/ });
  await assert.rejects(durability.settled(), { code: "not_ready" });
  assert.equal(syncs.length, 1, "the second answer needed no second sync to be a refusal");
  assert.equal(rescues, 3, "once at the failure, and twice when it was asked for again");
  assert.equal(durability.failed, true);
  isDiskBroken = false;
  await durability.settled();
  assert.equal(durability.failed, false);
  assert.equal(syncs.length, 1);
  await durability.close();
});

test("what is settled of one VM waits neither for others' writes nor for what lists show", async () => {
  const gates: (() => void)[] = [];
  const store = openStore(
    join(directory, `${files++}.db`),
    () => new Promise<void>((resolve) => void gates.push(resolve)),
  );
  const open = async () => {
    await turns();
    for (const gate of gates.splice(0)) gate();
  };
  const settle = async (work: Promise<void>) => {
    await open();
    await work;
  };
  const { id } = store.createVm(newVm("a"));
  await settle(store.settled(id));
  const other = store.createVm(newVm("b"));
  store.recordStatus(id, "starting", undefined);
  await store.settled(id);
  store.recordStarted(id, 1);
  let known = false;
  const settled = store.settled(id).then(() => (known = true));
  await turns();
  assert.equal(known, false);
  await open();
  await settled;
  await store.settled(other.id);
  store.deleteVm(id);
  known = false;
  const gone = store.settled(id).then(() => (known = true));
  await turns();
  assert.equal(known, false, "that a row is gone is something that steps rely on");
  await open();
  await gone;
  store.close();
});

test("a row is read anew after each way of writing it, a refused one included, and after another program's", async () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  const vm = store.createVm(newVm("a"));
  assert.equal(store.getVm(vm.id), store.getVm(vm.id), "it is kept");
  assert.throws(
    () => store.createVm({ ...newVm("b"), pool: { ...pool, subnet: parseSubnet("10.0.0.0/30"), gateway: 0x0a000001 } }),
    { code: "exhausted" },
  );
  const taken = { address: "127.0.0.1", hostPort: 8080, guestPort: 80 };
  store.createVm({ ...newVm("c"), ports: [taken] });
  assert.throws(() => store.writeConfig(vm.id, { basis: 1, spec: vm.spec, ports: [taken] }), { code: "in_use" });
  assert.deepEqual(store.getVm(vm.id), vm);
  store.recordStatus(vm.id, "running", "so");
  assert.deepEqual([store.getVm(vm.id)?.status, store.findVm("a")?.reason], ["running", "so"]);
  store.recordEnd(vm.id, 1, { status: "crashed", reason: "it" });
  assert.equal(store.getVm(vm.id)?.endedStatus, "crashed");
  store.writeConfig(vm.id, { basis: 1, spec: { ...vm.spec, reservedAddress: 0x0a000006 }, ports: [] });
  assert.equal(store.setIntent(vm.id, { desired: "running", start: true, pool }).address, 0x0a000006);
  const other = { subnet: parseSubnet("10.9.0.0/29"), gateway: 0x0a090001 };
  const before = store.getVm(vm.id);
  // It is read in the transaction, after its generation was raised, and then its reserved address is refused.
  assert.throws(() => store.setIntent(vm.id, { desired: "running", start: true, pool: other }), {
    code: "wrong_state",
  });
  assert.deepEqual(store.getVm(vm.id), before);
  const shell = new DatabaseSync(path);
  shell.exec("UPDATE vms SET reason = 'another hand'");
  shell.close();
  assert.deepEqual(
    store.listVms({}).vms.map(({ reason }) => reason),
    ["another hand", "another hand"],
  );
  store.deleteVm(vm.id);
  assert.equal(store.getVm(vm.id), undefined);
  store.close();
});

test("what a transaction has read is not kept: it may never have been", () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  const vm = store.createVm(newVm("a"));
  store.close();
  const database = new DatabaseSync(path);
  const cache = new VmCache(database, () => {});
  database.exec("BEGIN IMMEDIATE");
  cache.keep(vm);
  database.exec("ROLLBACK");
  assert.equal(cache.get(vm.id), undefined);
  cache.keep(vm);
  assert.equal(cache.get(vm.id), vm);
  database.close();
});

interface ModelVm {
  readonly id: number;
  readonly desired: string;
  readonly generation: number;
  readonly running: number;
}

type Model = ReadonlyMap<string, ModelVm>;

/** A store on a disk whose power may fail: what comes back then is what the last sync that succeeded had found. */
class Machine {
  #path = join(directory, `${files++}.db`);
  #image: string | undefined;
  #failures = 0;
  #isRescueDue = false;
  store: SqliteStore;

  constructor() {
    this.store = this.#open();
  }

  #open(): SqliteStore {
    return openStore(this.#path, async () => {
      const image = this.#copy();
      await turns(1);
      if (this.#failures > 0) {
        this.#failures -= 1;
        this.#isRescueDue = true;
        throw new Error("EIO: i/o error, fdatasync");
      }
      this.#image = image;
    });
  }

  #copy(): string {
    const copy = join(directory, `${files++}.db`);
    for (const suffix of ["", "-wal"]) {
      if (existsSync(this.#path + suffix)) copyFileSync(this.#path + suffix, copy + suffix);
    }
    return copy;
  }

  /** @param broken whether the rescue fails, too, here for another program that reads; the store then refuses */
  async settle(fault: "none" | "once" | "broken"): Promise<boolean> {
    let reader: DatabaseSync | undefined;
    if (fault !== "none") this.#failures = 1;
    if (fault === "broken") {
      reader = new DatabaseSync(this.#path);
      reader.exec("BEGIN; SELECT count(*) FROM vms");
      // Something that the reader's view does not have, or the log could be written back all the same.
      this.store.recordStatus(1, "pending", undefined);
    }
    try {
      await this.store.settled();
      // A rescue is no sync that this test sees: it writes everything back and waits for the disk itself.
      if (this.#isRescueDue) this.#image = this.#copy();
      this.#isRescueDue = false;
      return true;
    } catch (error) {
      assert.equal((error as { code?: unknown }).code, "not_ready");
      return false;
    } finally {
      this.#failures = 0;
      reader?.close();
    }
  }

  kill(): void {
    const image = this.#copy();
    this.store.close();
    this.#path = image;
    this.store = this.#open();
  }

  /** @returns whether anything was ever durable */
  losePower(): boolean {
    const image = this.#image;
    if (image === undefined) return false;
    this.store.close();
    for (const suffix of ["", "-wal"]) {
      if (existsSync(image + suffix)) copyFileSync(image + suffix, `${image}.again${suffix}`);
    }
    this.#path = `${image}.again`;
    this.store = this.#open();
    return true;
  }
}

function contents(store: SqliteStore): Model {
  const { vms } = store.listVms({});
  return new Map(
    vms.map(({ id, spec: { name }, desired, generation, runningGeneration: running, address, tap }) => {
      assert.ok(address !== undefined && tap !== undefined, "no VM is half there");
      return [name, { id, desired, generation, running }];
    }),
  );
}

const MOST = 5;
const name = fc.constantFrom("a", "b", "c", "d", "e", "f", "g");
const command = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("create" as const), name }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("start" as const), name }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("running" as const), name }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("delete" as const), name }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant("settle" as const),
      fault: fc.constantFrom("none", "none", "once", "broken"),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("kill" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("power" as const) }) },
);

test("random writes, refused ones, failing disks, kills and power failures: what settled is there, what was refused is not, all in order", async () => {
  const seen = { refused: 0, unsettled: 0, lost: 0, kept: 0 };
  await fc.assert(
    fc.asyncProperty(fc.array(command, { minLength: 5, maxLength: 40 }), async (commands) => {
      const machine = new Machine();
      let model: Model = new Map();
      let nextId = 1;
      /** What was there after each write since the last that settled, which is the first. */
      let history: { readonly model: Model; readonly nextId: number }[] = [{ model, nextId }];
      const write = (vmName: string, vm: ModelVm | undefined) => {
        const changed = new Map(model);
        if (vm === undefined) changed.delete(vmName);
        else changed.set(vmName, vm);
        model = changed;
        history.push({ model, nextId });
      };
      for (const step of commands) {
        const { store } = machine;
        if (step.do === "settle") {
          const isSettled = await machine.settle(step.fault as "none");
          if (isSettled) history = history.slice(-1);
          else seen.unsettled += 1;
        } else if (step.do === "kill") machine.kill();
        else if (step.do === "power") {
          if (!machine.losePower()) continue;
          const found = contents(machine.store);
          // Of two equal ones the later is meant: nothing tells them apart but the next id, which the first create shows.
          const at = history.findLastIndex((entry) => same(entry.model, found));
          assert.ok(at >= 0, `what came back was never there: ${JSON.stringify([...found])}`);
          if (at < history.length - 1) seen.lost += 1;
          else seen.kept += 1;
          ({ model } = history[at] as (typeof history)[number]);
          const ids = history.map((entry) => entry.nextId);
          nextId = nextIdOf(machine, ids);
          // The probe for it is another write that may be lost.
          history = [
            { model, nextId: nextId - 1 },
            { model, nextId },
          ];
        } else if (step.do === "create") {
          const refusal = model.has(step.name) ? "exists" : model.size >= MOST ? "exhausted" : undefined;
          if (refusal === undefined) {
            const { id } = store.createVm(newVm(step.name));
            assert.equal(id, nextId, "an id is used once");
            nextId += 1;
            write(step.name, { id, desired: "running", generation: 1, running: 0 });
          } else {
            assert.throws(() => store.createVm(newVm(step.name)), { code: refusal });
            seen.refused += 1;
          }
        } else {
          const vm = model.get(step.name);
          if (vm === undefined) continue;
          if (step.do === "start") {
            store.setIntent(vm.id, { desired: "running", start: true, pool });
            write(step.name, { ...vm, generation: vm.generation + 1 });
          } else if (step.do === "running") {
            store.recordRunning(vm.id, vm.generation);
            write(step.name, { ...vm, running: vm.generation });
          } else {
            store.deleteVm(vm.id);
            write(step.name, undefined);
          }
        }
        assert.deepEqual(new Map([...contents(machine.store)].sort()), new Map([...model].sort()));
      }
      machine.store.close();
    }),
    { numRuns: 60 },
  );
  for (const [what, count] of Object.entries(seen)) assert.ok(count > 0, `no run had anything ${what}`);
});

function same(a: Model, b: Model): boolean {
  return JSON.stringify([...a].sort()) === JSON.stringify([...b].sort());
}

/** The id that comes next, which must be one that was to come next at some time. */
function nextIdOf({ store }: Machine, possible: readonly number[]): number {
  const { id } = store.createVm({ ...newVm("probe"), pool: undefined, tapNames: undefined });
  store.deleteVm(id);
  assert.ok(possible.includes(id), `id ${id} is none of ${possible.join(", ")}`);
  return id + 1;
}
