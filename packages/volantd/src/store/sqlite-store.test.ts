import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import test, { after } from "node:test";
import { MAX_CONFIG_HISTORY } from "@volant/contract";
import fc from "fast-check";
import { isLeasable, parseSubnet, type AddressPool } from "../model/address.ts";
import { tapNames } from "../model/tap-name.ts";
import { manifest, vmSpec } from "../testing/vm-spec.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import { SqliteStore } from "./sqlite-store.ts";
import type { NewVm, VmRecord } from "./store.ts";

const directory = mkdtempSync(join(tmpdir(), "store-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const pool: AddressPool = { subnet: parseSubnet("10.0.0.0/29"), gateway: 0x0a000001 };

let clock = Date.UTC(2026, 0, 1);
let files = 0;

function openStore(path = join(directory, `${files++}.db`)): SqliteStore {
  return SqliteStore.open({ path, now: () => new Date(clock), newInstallation: () => "abcdef01", restMs: 1000 });
}

const newVm = (name: string): NewVm => ({ spec: vmSpec(name), tapNames: tapNames(name), pool });

test("a new VM gets its id, MAC, context id, tap and the lowest address at once", () => {
  const store = openStore();
  const vm = store.createVm(newVm("web"));
  assert.deepEqual(
    { id: vm.id, mac: vm.mac, cid: vm.cid, tap: vm.tap, address: vm.address, generation: vm.generation },
    { id: 1, mac: "02:ab:cd:00:00:01", cid: 3, tap: "vttap-web", address: 0x0a000002, generation: 1 },
  );
  assert.equal(vm.status, "pending");
  assert.deepEqual(store.findVm("web"), vm);
  assert.deepEqual(JSON.parse(JSON.stringify(vm.spec)), JSON.parse(JSON.stringify(vmSpec("web"))));
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

test("a change waits for the next start, which puts it in force together with lease and tap; the tap keeps its name", () => {
  const store = openStore();
  const names = () => tapNames("web");
  const web = store.createVm(newVm("web"));
  const write = (basis: number, changes: Partial<VmSpec>) =>
    store.writeConfig(web.id, { basis, spec: { ...vmSpec("web"), ...changes } });
  const start = () => store.setIntent(web.id, { desired: "running", start: true, pool, tapNames: names() });
  const vsock = write(1, { mode: "vsock", config: { network: { mode: "vsock" } } });
  assert.deepEqual([vsock?.spec.mode, vsock?.next?.mode, vsock?.configVersion], ["bridged", "vsock", 2]);
  assert.deepEqual([vsock?.tap, vsock?.address], [web.tap, web.address]);
  assert.equal(write(1, {}), undefined, "somebody else wrote version 2");
  const down = start();
  assert.deepEqual([down.spec.mode, down.next, down.tap, down.address], ["vsock", undefined, undefined, undefined]);
  // Its tap's name is kept, its address is not.
  assert.notEqual(store.createVm(newVm("Web")).tap, web.tap);
  write(2, { mode: "dhcp", config: { network: { mode: "dhcp" } } });
  const lan = start();
  assert.deepEqual([lan.tap, lan.address], [web.tap, undefined]);
  write(3, {});
  const back = start();
  assert.deepEqual([back.tap, back.spec.mode, back.generation], [web.tap, "bridged", 4]);
  assert.notEqual(back.address, undefined);
  assert.deepEqual(
    store.configHistory(web.id, 2).map(({ version, config }) => [version, config.network?.mode]),
    [
      [4, undefined],
      [3, "dhcp"],
    ],
  );
  store.deleteVm(web.id);
  assert.deepEqual(store.configHistory(web.id, 9), []);
  store.close();
});

test("a tap that the user named comes with the name and goes without it; one that another VM has is refused", () => {
  const store = openStore();
  const web = store.createVm(newVm("web"));
  const other = store.createVm(newVm("other"));
  const start = () => store.setIntent(web.id, { desired: "running", start: true, pool, tapNames: tapNames("web") });
  store.writeConfig(web.id, { basis: 1, spec: { ...vmSpec("web"), tap: "mine" } });
  assert.equal(start().tap, "mine");
  store.writeConfig(web.id, { basis: 2, spec: vmSpec("web") });
  assert.equal(start().tap, "vttap-web");
  store.writeConfig(web.id, { basis: 3, spec: { ...vmSpec("web"), tap: String(other.tap) } });
  assert.throws(start, { code: "exists", message: /vttap-other/ });
  assert.equal(store.getVm(web.id)?.generation, 3, "a start that is refused is none");
  store.close();
});

test("only so many versions are remembered, and what needs no start is in force at once", () => {
  const store = openStore();
  const web = store.createVm(newVm("web"));
  for (let version = 1; version <= MAX_CONFIG_HISTORY + 3; version += 1) {
    const written = store.writeConfig(web.id, {
      basis: version,
      spec: { ...vmSpec("web"), config: { metadata: { version } } },
    });
    assert.equal(written?.next, undefined);
    assert.deepEqual(written?.spec.config, { metadata: { version } });
  }
  const versions = store.configHistory(web.id, 1000).map(({ version }) => version);
  assert.deepEqual([versions.length, versions[0]], [MAX_CONFIG_HISTORY, MAX_CONFIG_HISTORY + 4]);
  assert.equal(store.writeConfig(99, { basis: 1, spec: vmSpec("x") }), undefined);
  store.close();
});

test("a database of the first version is migrated: leases stay, and what was asked for is version 1 of the configuration", () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  const web = store.createVm({ ...newVm("web"), spec: { ...vmSpec("web"), cpuCores: 3, config: { env: { A: "1" } } } });
  store.deleteVm(store.createVm(newVm("gone")).id);
  store.close();
  const raw = new DatabaseSync(path);
  raw.exec(`CREATE TABLE old_leases (address INTEGER PRIMARY KEY, vm_id INTEGER UNIQUE REFERENCES vms (id), released_at INTEGER) STRICT;
    INSERT INTO old_leases SELECT address, vm_id, released_at FROM leases;
    DROP TABLE leases; ALTER TABLE old_leases RENAME TO leases; DROP TABLE lease_blocks; DROP TABLE vm_configs; DROP TABLE published_ports; DROP TABLE requests; DROP TABLE plugin_artifacts; DROP TABLE events; DROP TABLE api_keys;
    DROP INDEX vms_by_replica; ALTER TABLE vms DROP COLUMN deployment_id; ALTER TABLE vms DROP COLUMN replica_index;
    ALTER TABLE vms DROP COLUMN replica_version; DROP TABLE deployment_versions; DROP TABLE deployments;
    ALTER TABLE vms DROP COLUMN ended_cause; ALTER TABLE vms DROP COLUMN restarts; ALTER TABLE vms DROP COLUMN failures;
    ALTER TABLE vms DROP COLUMN restart_at; ALTER TABLE vms DROP COLUMN config_version; ALTER TABLE vms DROP COLUMN next_spec; PRAGMA user_version = 1`);
  raw.close();
  const again = openStore(path);
  const found = again.findVm("web");
  const config = { env: { A: "1" }, plugin: "hello", runtime: "hello", resources: { cpu_cores: 3, memory_mb: 128 } };
  assert.deepEqual([found?.address, found?.configVersion, found?.spec.config], [web.address, 1, config]);
  assert.deepEqual(again.configHistory(web.id, 9)[0]?.config, config);
  assert.equal(again.createVm(newVm("next")).address, 0x0a000004, "one address is leased, one rests");
  again.close();
});

test("what is written together is one transaction: when it fails nothing of it is there, neither the VM nor the event that tells of it", () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  const event = { type: "VM_CREATED", name: "web", timestamp: "2026-01-01T00:00:00.000Z" } as const;
  const create = (fail: boolean) =>
    store.together(() => {
      const { id } = store.createVm(newVm("web"));
      store.addEvent(event);
      if (fail) throw new Error("the disk is full");
      return id;
    });
  assert.throws(() => create(true), /the disk is full/);
  assert.deepEqual([store.findVm("web"), store.events({ limit: 9 })], [undefined, []]);
  const id = create(false);
  // A part that is refused, by whatever, leaves the rest alone.
  store.together(() => {
    store.recordStatus(id, "running", undefined);
    assert.throws(() => store.createVm(newVm("web")), { code: "exists" });
  });
  store.close();
  const again = openStore(path);
  assert.equal(again.findVm("web")?.status, "running");
  assert.deepEqual(
    again.events({ limit: 9 }).map((kept) => kept.event),
    [event],
  );
  again.close();
});

test("a plugin that a VM will run from its next start on is needed, and so are its files", () => {
  const store = openStore();
  store.createPlugin({ ...manifest, name: "later" }, true);
  const web = store.createVm(newVm("web"));
  const initramfs = { url: "file:///later", checksum: `sha256:${"b".repeat(64)}` };
  store.writeConfig(web.id, { basis: 1, spec: { ...vmSpec("web"), plugin: "later", initramfs } });
  assert.throws(() => store.deletePlugin("later"), { code: "in_use", message: /"web"/ });
  assert.ok(store.filesInUse().some(({ url }) => url === "file:///later"));
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
  assert.deepEqual(names({ runtime: "other" }), [[], 0]);
  assert.deepEqual(names({ runtime: "hello", plugin: "hello", q: "web", status: ["pending"] }), [["web-1"], 1]);
  assert.deepEqual(names({ sort: "status", limit: 3 })[0], ["db_1", "dbx1", "web-1"]);
  assert.deepEqual(names({ sort: "status", order: "desc", limit: 1 })[0], ["web-2"]);
  for (const sort of ["runtime", "created_at", "updated_at"] as const) assert.equal(names({ sort })[1], 4);
  assert.deepEqual(store.countVms(), { total: 4, byStatus: { pending: 3, running: 1 }, byRuntime: { hello: 4 } });
  store.close();
});

test("whatever is written, undone or left alone between two lists, a list is what the rows say", () => {
  const store = openStore();
  const names = ["a", "b", "c"];
  const filters = [{}, { limit: 2 }, { status: ["running" as const] }, { sort: "status" as const, offset: 1 }];
  const own = (name: string): void => {
    const vm = store.findVm(name);
    if (vm === undefined) store.createVm({ ...newVm(name), ports: [] });
    else store.deleteVm(vm.id);
  };
  const writes: readonly ((vm: VmRecord | undefined, name: string) => void)[] = [
    (_vm, name) => own(name),
    (vm) => vm && store.recordStatus(vm.id, vm.status === "running" ? "stopped" : "running", undefined),
    (vm) => vm && store.recordStatus(vm.id, vm.status, `reason ${clock}`),
    (vm) => vm && store.setIntent(vm.id, { desired: "stopped", start: false }),
    (vm) => vm && store.recordEnd(vm.id, vm.generation, { status: "crashed", reason: "it ended" }),
    () => (clock += 1),
  ];
  const write = fc.record({ what: fc.nat(), who: fc.nat(), isUndone: fc.boolean(), asks: fc.nat({ max: 15 }) });
  fc.assert(
    fc.property(fc.array(write, { maxLength: 20 }), (steps) => {
      for (const { what, who, isUndone, asks } of steps) {
        const name = names[who % names.length] ?? "a";
        const run = (): void => {
          writes[what % writes.length]?.(store.findVm(name), name);
          if (isUndone) store.listVms({});
          if (isUndone) throw new Error("undone");
        };
        try {
          store.together(run);
        } catch (error) {
          if ((error as Error).message !== "undone") throw error;
        }
        for (const [index, filter] of filters.entries()) {
          if ((asks & (1 << index)) === 0) continue;
          const { vms, total } = store.listVms(filter);
          const rows = names.flatMap((one) => store.findVm(one) ?? []);
          const { status, sort, offset = 0, limit } = { status: undefined, sort: "name", limit: undefined, ...filter };
          const fitting = rows.filter((row) => status?.includes(row.status as never) ?? true);
          const key = (row: VmRecord): string => `${sort === "status" ? row.status : ""} ${row.spec.name}`;
          const sorted = fitting.toSorted((one, other) => (key(one) < key(other) ? -1 : 1));
          assert.deepEqual(vms, sorted.slice(offset, limit === undefined ? undefined : offset + limit));
          assert.equal(total, sorted.length);
        }
      }
    }),
    { numRuns: 200 },
  );
  const known = store.listVms({});
  assert.equal(store.listVms({}), known, "and the same one where nothing was written");
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

test("a database that another program made, v1's for one, is refused in words and left byte for byte as it is", () => {
  const path = join(directory, `${files++}.db`);
  const raw = new DatabaseSync(path);
  raw.exec("CREATE TABLE vms (id INTEGER PRIMARY KEY, name TEXT)");
  raw.close();
  const bytes = readFileSync(path);
  assert.throws(() => openStore(path), { code: "not_ready", message: /another program's/ });
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
    const spec = ${JSON.stringify(vmSpec("x"))};
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

test("a port of the host is one VM's: the schema and the store refuse a second one, and a deletion frees it", () => {
  const store = openStore();
  const port = (address: string, hostPort: number) => ({ address, hostPort, guestPort: 80 });
  const web = store.createVm({
    ...newVm("web"),
    ports: [{ ...port("127.0.0.1", 8080), name: "http" }, port("::1", 8080)],
  });
  assert.deepEqual(web.ports, [{ ...port("127.0.0.1", 8080), name: "http" }, port("::1", 8080)]);
  for (const taken of [port("127.0.0.1", 8080), port("0.0.0.0", 8080), port("::", 8080)]) {
    assert.throws(() => store.createVm({ ...newVm("other"), ports: [port("127.0.0.1", 1), taken] }), {
      code: "in_use",
      message: /is VM "web"'s/,
    });
    assert.equal(store.findVm("other"), undefined);
  }
  const other = store.createVm({ ...newVm("other"), ports: [port("127.0.0.2", 8080)] });
  assert.throws(() => store.checkPort(other.id, port("127.0.0.1", 8080)), { code: "in_use" });
  assert.doesNotThrow(() => store.checkPort(web.id, port("127.0.0.1", 8080)));
  assert.equal(store.publishedPorts().length, 3);
  assert.throws(() => store.writeConfig(other.id, { basis: 1, spec: other.spec, ports: [port("::", 8080)] }), {
    code: "in_use",
  });
  assert.deepEqual(store.getVm(other.id)?.ports, [port("127.0.0.2", 8080)], "a change that is refused changes nothing");
  store.setIntent(web.id, { desired: "absent", start: false });
  assert.deepEqual(store.publishedPorts(), [{ ...port("127.0.0.2", 8080), vmId: other.id }]);
  assert.throws(() => store.checkPort(other.id, port("127.0.0.1", 8080)), { code: "in_use" }, "not before it is gone");
  store.deleteVm(web.id);
  assert.doesNotThrow(() => store.checkPort(other.id, port("127.0.0.1", 8080)));
  store.close();
});

test("a VM that ended is started again only in the generation that ended, while it is wanted to run, and once", () => {
  const store = openStore();
  const { id } = store.createVm(newVm("web"));
  const end = { status: "crashed", reason: "it broke", cause: "host-signal", restartAtMs: clock + 1000 } as const;
  assert.equal(store.restartVm(id, 1, { pool }), undefined, "it has not ended");
  store.recordEnd(id, 1, end);
  store.recordEnd(id, 1, { ...end, restartAtMs: clock + 9 });
  const ended = store.getVm(id);
  assert.deepEqual([ended?.restartAtMs, ended?.failures, ended?.endedCause], [clock + 1000, 1, "host-signal"]);
  store.scheduleRestart(id, 1, clock + 5);
  assert.equal(store.getVm(id)?.restartAtMs, clock + 1000, "the first word stands");
  assert.equal(store.restartVm(id, 2, { pool }), undefined, "another generation");
  const again = store.restartVm(id, 1, { pool });
  assert.deepEqual(
    [again?.generation, again?.restarts, again?.failures, again?.restartAtMs, again?.status],
    [2, 1, 1, undefined, "pending"],
  );
  assert.equal(store.restartVm(id, 1, { pool }), undefined);
  store.recordEnd(id, 2, { ...end, restartAtMs: undefined });
  assert.equal(store.restartVm(id, 2, { pool }), undefined, "nobody said when");
  store.scheduleRestart(id, 2, clock + 5);
  assert.equal(store.getVm(id)?.failures, 2);
  const stopped = store.setIntent(id, { desired: "stopped", start: false });
  assert.deepEqual([stopped.restartAtMs, stopped.failures, stopped.restarts], [undefined, 0, 1]);
  store.scheduleRestart(id, 2, clock + 5);
  assert.equal(store.getVm(id)?.restartAtMs, undefined);
  assert.equal(store.restartVm(id, 2, { pool }), undefined, "a user stopped it");
  const started = store.setIntent(id, { desired: "running", start: true, pool });
  assert.deepEqual([started.generation, started.restarts], [3, 0]);
  store.setIntent(id, { desired: "stopped", start: false });
  store.recordEnd(id, 3, end);
  assert.deepEqual([store.getVm(id)?.restartAtMs, store.getVm(id)?.failures], [undefined, 0], "stopped meanwhile");
  store.close();
});

test("an answer is remembered with what it was made for, or not at all; for a day, and the newest ten thousand", () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  const asked = (key: string, name = key): NewVm => ({
    ...newVm(name),
    tapNames: undefined,
    pool: undefined,
    request: { scope: "vms.create", key, fingerprint: `print of ${key}`, answer: ({ id }) => JSON.stringify({ id }) },
  });
  const { id } = store.createVm(asked("one"));
  const answered = { fingerprint: "print of one", answer: JSON.stringify({ id }) };
  assert.deepEqual(store.answeredRequest("vms.create", "one"), answered);
  assert.equal(store.answeredRequest("plugins.install", "one"), undefined);
  assert.throws(() => store.createVm(asked("two", "one")), { code: "exists" });
  assert.equal(store.answeredRequest("vms.create", "two"), undefined, "what failed is not remembered");
  clock += 24 * 3_600_000 - 1;
  assert.deepEqual(store.answeredRequest("vms.create", "one"), answered);
  clock += 1;
  assert.equal(store.answeredRequest("vms.create", "one"), undefined);
  store.close();
  const raw = new DatabaseSync(path);
  const count = () => raw.prepare("SELECT count(*) AS count FROM requests").get()?.["count"];
  raw.exec(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10050)
    INSERT INTO requests SELECT 'vms.create', 'old ' || i, '', '{}', ${clock} - 20000 + i FROM n`);
  const again = openStore(path);
  again.createVm(asked("three"));
  assert.equal(count(), 10_000);
  assert.equal(again.answeredRequest("vms.create", "old 51"), undefined, "the oldest went");
  assert.ok(again.answeredRequest("vms.create", "old 52") !== undefined);
  assert.ok(again.answeredRequest("vms.create", "three") !== undefined);
  again.close();
  raw.close();
});
