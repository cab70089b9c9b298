import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import test, { after } from "node:test";
import type { Manifest } from "@volant/contract";
import fc from "fast-check";
import { isLeasable, parseSubnet, type AddressPool } from "../model/address.ts";
import { tapNames } from "../model/tap-name.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import { SqliteStore } from "./sqlite-store.ts";
import type { NewVm, VmRecord } from "./store.ts";

const directory = mkdtempSync(join(tmpdir(), "store-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const manifest: Manifest = {
  name: "hello",
  version: "1",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { entrypoint: ["/bin/hello"] },
  initramfs: { url: "file:///hello", checksum: `sha256:${"a".repeat(64)}` },
};
const pool: AddressPool = { subnet: parseSubnet("10.0.0.0/29"), gateway: 0x0a000001 };

let clock = Date.UTC(2026, 0, 1);
let files = 0;

function openStore(path = join(directory, `${files++}.db`)): SqliteStore {
  return SqliteStore.open({ path, now: () => new Date(clock), newInstallation: () => "abcdef01", restMs: 1000 });
}

function spec(name: string): VmSpec {
  return {
    name,
    plugin: "hello",
    runtime: "hello",
    cpuCores: 1,
    memoryMib: 128,
    kernelCmdline: "",
    apiHost: "",
    apiPort: "",
    manifest,
    config: {},
    mode: "bridged",
    tap: undefined,
    initramfs: { url: "file:///hello" },
  };
}

const newVm = (name: string): NewVm => ({ spec: spec(name), tapNames: tapNames(name), pool });

test("a new VM gets its id, MAC, context id, tap and the lowest address at once", () => {
  const store = openStore();
  const vm = store.createVm(newVm("web"));
  assert.deepEqual(
    { id: vm.id, mac: vm.mac, cid: vm.cid, tap: vm.tap, address: vm.address, generation: vm.generation },
    { id: 1, mac: "02:ab:cd:00:00:01", cid: 3, tap: "vttap-web", address: 0x0a000002, generation: 1 },
  );
  assert.equal(vm.status, "pending");
  assert.deepEqual(store.findVm("web"), vm);
  assert.deepEqual(JSON.parse(JSON.stringify(vm.spec)), JSON.parse(JSON.stringify(spec("web"))));
  store.close();
});

test("a taken name takes nothing, and an exhausted pool makes no row", () => {
  const store = openStore();
  for (const name of ["a", "b", "c", "d", "e"]) store.createVm(newVm(name));
  assert.throws(() => store.createVm(newVm("a")), { code: "exists" });
  assert.throws(() => store.createVm(newVm("f")), {
    code: "exhausted",
    message: "no free address is left in 10.0.0.0/29",
  });
  assert.equal(store.listVms({}).total, 5);
  assert.equal(store.findVm("f"), undefined);
  store.close();
});

test("an id is never used again, and a released address only once it has rested or nothing else is left", () => {
  const store = openStore();
  const first = store.createVm(newVm("a"));
  store.deleteVm(first.id);
  const second = store.createVm(newVm("a"));
  assert.equal(second.id, 2);
  assert.equal(second.address, 0x0a000003);
  clock += 1001;
  assert.equal(store.createVm(newVm("b")).address, 0x0a000002);
  store.deleteVm(second.id);
  const rest = ["c", "d", "e", "f"].map((name) => store.createVm(newVm(name)).address);
  assert.deepEqual(rest, [0x0a000004, 0x0a000005, 0x0a000006, 0x0a000003]);
  store.close();
});

test("two VMs whose names collapse to one tap name get two", () => {
  const store = openStore();
  const taps = ["web1", "web-1", "Web1", "web_1"].map((name) => store.createVm(newVm(name)).tap);
  assert.equal(taps[0], "vttap-web1");
  assert.equal(new Set(taps).size, 4);
  store.close();
});

test("the schema itself refuses a second lease of an address and a second address of a VM", () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  const a = store.createVm(newVm("a"));
  const b = store.createVm(newVm("b"));
  store.close();
  const raw = new DatabaseSync(path);
  raw.exec("PRAGMA foreign_keys = ON");
  const insert = (address: number, vm: number) => () =>
    raw.prepare("INSERT INTO leases (address, vm_id) VALUES (?, ?)").run(address, vm);
  assert.throws(insert(a.address ?? 0, b.id), /UNIQUE/);
  assert.throws(insert(0x0a000006, b.id), /UNIQUE/);
  assert.throws(insert(0x0a000006, 99), /FOREIGN KEY/);
  assert.throws(() => raw.exec("UPDATE vms SET ended_generation = generation + 1"), /CHECK/);
  raw.close();
});

test("a start raises the generation, and moves a lease that the network no longer holds", () => {
  const store = openStore();
  const vm = store.createVm(newVm("a"));
  store.recordStarted(vm.id, 1);
  store.recordEnd(vm.id, 1, { status: "crashed", reason: "it panicked" });
  store.recordStatus(vm.id, "crashed", "it panicked");
  const other: AddressPool = { subnet: parseSubnet("10.1.0.0/24"), gateway: 0x0a010001 };
  const started = store.setIntent(vm.id, { desired: "running", start: true, pool: other });
  assert.equal(started.generation, 2);
  assert.equal(started.endedGeneration, 1);
  assert.equal(started.status, "pending");
  assert.equal(started.address, 0x0a010002);
  assert.equal(store.setIntent(vm.id, { desired: "running", start: true, pool: other }).address, 0x0a010002);
  const stopped = store.setIntent(vm.id, { desired: "stopped", start: false });
  assert.equal(stopped.generation, 3);
  // A record that comes late says nothing about a younger generation.
  store.recordEnd(vm.id, 3, { status: "stopped", reason: undefined });
  store.recordEnd(vm.id, 2, { status: "crashed", reason: "late" });
  assert.equal(store.getVm(vm.id)?.endedGeneration, 3);
  store.close();
});

test("lists are filtered, sorted and paged in the database, and count before paging", () => {
  const store = openStore();
  for (const name of ["web-2", "web-1", "db_1", "dbx1"]) store.createVm(newVm(name));
  store.recordStatus(1, "running", undefined);
  const names = (filter: Parameters<SqliteStore["listVms"]>[0]) => {
    const { vms, total } = store.listVms(filter);
    return [vms.map((vm: VmRecord) => vm.spec.name), total];
  };
  assert.deepEqual(names({}), [["db_1", "dbx1", "web-1", "web-2"], 4]);
  assert.deepEqual(names({ order: "desc", limit: 2, offset: 1 }), [["web-1", "dbx1"], 4]);
  assert.deepEqual(names({ status: ["running", "crashed"] }), [["web-2"], 1]);
  assert.deepEqual(names({ q: "WEB" }), [["web-1", "web-2"], 2]);
  assert.deepEqual(names({ q: "b_" }), [["db_1"], 1]);
  assert.deepEqual(names({ plugin: "other" }), [[], 0]);
  assert.deepEqual(names({ offset: 3 }), [["web-2"], 4]);
  assert.deepEqual(store.countVms(), { total: 4, byStatus: { pending: 3, running: 1 }, byRuntime: { hello: 4 } });
  store.close();
});

test("plugins: installed once, disabled, and kept while a VM was made from them", () => {
  const store = openStore();
  assert.equal(store.createPlugin(manifest, true).enabled, true);
  assert.throws(() => store.createPlugin(manifest, true), { code: "exists" });
  assert.equal(store.setPluginEnabled("hello", false)?.enabled, false);
  assert.equal(store.setPluginEnabled("nope", false), undefined);
  const vm = store.createVm(newVm("a"));
  assert.throws(() => store.deletePlugin("hello"), { code: "in_use", message: /"a"/ });
  store.deleteVm(vm.id);
  assert.equal(store.deletePlugin("hello"), true);
  assert.equal(store.deletePlugin("hello"), false);
  store.close();
});

test("the installation id is made once", () => {
  const path = join(directory, `${files++}.db`);
  openStore(path).close();
  const again = SqliteStore.open({ path, now: () => new Date(clock), newInstallation: () => "00000000" });
  assert.equal(again.installation, "abcdef01");
  again.close();
});

test("a second store on the same database is refused, and the file is its owner's alone", () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.throws(() => openStore(path), { code: "in_use", message: new RegExp(`${path}.*another volantd`) });
  store.close();
  openStore(path).close();
});

test("a database of a newer schema is refused in words and left byte for byte as it is", () => {
  const path = join(directory, `${files++}.db`);
  const raw = new DatabaseSync(path);
  raw.exec("CREATE TABLE theirs (x); PRAGMA user_version = 9999");
  raw.close();
  const bytes = readFileSync(path);
  assert.throws(() => openStore(path), { code: "not_ready", message: /schema version 9999/ });
  assert.deepEqual(readFileSync(path), bytes);
});

test("a file that is no database, or a folder, is refused in words", () => {
  assert.throws(() => openStore(directory), { name: "VolantError", code: "not_ready" });
});

test("leases agree with a simple model over random operations: lowest rested address first, none twice", () => {
  const operation = fc.oneof(
    fc.record({ do: fc.constant("create" as const) }),
    fc.record({ do: fc.constant("delete" as const), pick: fc.nat() }),
    fc.record({ do: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 1500 }) }),
  );
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      const store = SqliteStore.open({
        path: join(directory, `${files++}.db`),
        now: () => new Date(clock),
        newInstallation: () => "abcdef01",
        restMs: 1000,
      });
      const leased = new Map<number, number>();
      const resting = new Map<number, number>();
      let next = 0;
      for (const step of operations) {
        if (step.do === "wait") clock += step.ms;
        else if (step.do === "delete") {
          const ids = [...leased.keys()];
          const id = ids[step.pick % Math.max(1, ids.length)];
          if (id === undefined) continue;
          resting.set(leased.get(id) ?? 0, clock);
          leased.delete(id);
          store.deleteVm(id);
        } else {
          for (const [address, since] of resting) if (since <= clock - 1000) resting.delete(address);
          const held = new Set([...leased.values(), ...resting.keys()]);
          let expected: number | undefined;
          for (let address = pool.subnet.network + 7; address >= pool.subnet.network; address -= 1) {
            if (isLeasable(pool, address) && !held.has(address)) expected = address;
          }
          expected ??= [...resting].sort((a, b) => a[1] - b[1] || a[0] - b[0])[0]?.[0];
          const name = `vm${next++}`;
          if (expected === undefined) {
            assert.throws(() => store.createVm(newVm(name)), { code: "exhausted" });
            continue;
          }
          const vm = store.createVm(newVm(name));
          assert.equal(vm.address, expected);
          leased.set(vm.id, expected);
          resting.delete(expected);
        }
      }
      store.close();
    }),
    { numRuns: 40 },
  );
});

test("a process that is killed in the middle of writing loses nothing that it was told was written, and leaves no half VM", async () => {
  const path = join(directory, "killed.db");
  const program = `
    import { SqliteStore } from ${JSON.stringify(join(import.meta.dirname, "sqlite-store.ts"))};
    import { tapNames } from ${JSON.stringify(join(import.meta.dirname, "../model/tap-name.ts"))};
    const store = SqliteStore.open({ path: ${JSON.stringify(path)}, now: () => new Date(), newInstallation: () => "abcdef01" });
    const pool = { subnet: { network: ${0x0a000000}, prefixLength: 8 }, gateway: ${0x0a000001} };
    const spec = ${JSON.stringify(spec("x"))};
    for (;;) {
      const name = "vm" + Math.random().toString(36).slice(2);
      const vm = store.createVm({ spec: { ...spec, name }, tapNames: tapNames(name), pool });
      process.stdout.write("created " + vm.id + "\\n");
      if (vm.id % 3 === 0) { store.deleteVm(vm.id); process.stdout.write("deleted " + vm.id + "\\n"); }
    }`;
  const live = new Set<number>();
  for (let round = 0; round < 5; round += 1) {
    const child = spawn(process.execPath, ["--input-type=module-typescript", "--eval", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let seen = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      const [what, id] = line.split(" ");
      if (what === "created") live.add(Number(id));
      else live.delete(Number(id));
      seen += 1;
      if (seen === 20 + round * 7) child.kill("SIGKILL");
    }
    const store = openStore(path);
    const ids = new Set(store.vmIds());
    for (const id of live) {
      // The one that was being deleted may be gone before its child could say so.
      assert.ok(ids.has(id) || (id % 3 === 0 && id === Math.max(...live)), `VM ${id} was lost`);
    }
    for (const id of ids) {
      const vm = store.getVm(id);
      assert.ok(vm?.address !== undefined && vm.tap !== undefined);
      live.add(id);
    }
    for (const id of live) if (!ids.has(id)) live.delete(id);
    store.close();
    const raw = new DatabaseSync(path);
    assert.equal(raw.prepare("PRAGMA integrity_check").get()?.["integrity_check"], "ok");
    assert.deepEqual(raw.prepare("PRAGMA foreign_key_check").all(), []);
    raw.close();
  }
});
