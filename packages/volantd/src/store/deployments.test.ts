import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test, { after } from "node:test";
import { MAX_DEPLOYMENT_HISTORY } from "@volant/contract";
import { parseSubnet, type AddressPool } from "../model/address.ts";
import { tapNames } from "../model/tap-name.ts";
import { vmSpec } from "../testing/vm-spec.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import type { DeploymentRecord } from "./deployment-store.ts";
import { SqliteStore } from "./sqlite-store.ts";
import type { VmRecord } from "./store.ts";

const directory = mkdtempSync(join(tmpdir(), "deployments-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const pool: AddressPool = { subnet: parseSubnet("10.0.0.0/24"), gateway: 0x0a000001 };
const settings = { maxUnavailable: 1, readyTimeoutMs: 1000, minReadyMs: 0, paused: false };
let files = 0;

function openStore(path = join(directory, `${files++}.db`)): SqliteStore {
  return SqliteStore.open({ path, now: () => new Date(), newInstallation: () => "abcdef01", restMs: 0 });
}

function spec(name: string, env?: string): VmSpec {
  const config = env === undefined ? {} : { env: { A: env } };
  return vmSpec(name, { config, initramfs: { url: `file:///${env ?? "hello"}` } });
}

function makeReplica(store: SqliteStore, { id, name, version }: DeploymentRecord, index: number): VmRecord {
  const vm = `${name}-${index}`;
  const replica = { deploymentId: id, index, version };
  return store.createVm({ spec: spec(vm), tapNames: tapNames(vm), pool, replica });
}

const start = { desired: "running", start: true, pool } as const;

test("a deployment is read back as it was written, also after the store was closed", () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  const made = store.deployments.create({ name: "web", replicas: 2, spec: spec("web-1"), ...settings });
  const vm = makeReplica(store, made, 1);
  assert.deepEqual(vm.replica, { deploymentId: made.id, index: 1, version: 1 });
  assert.deepEqual([made.version, made.rolledOut, made.failure, made.deleting], [1, undefined, undefined, false]);
  assert.throws(() => store.deployments.create({ name: "web", replicas: 0, spec: spec("web-1"), ...settings }), {
    code: "exists",
  });
  store.close();
  const again = openStore(path);
  assert.deepEqual(again.deployments.find("web"), made);
  assert.deepEqual(again.deployments.replicas(made.id), [vm]);
  assert.deepEqual(again.deployments.spec(made.id, 1), JSON.parse(JSON.stringify(spec("web-1"))));
  assert.equal(again.createVm({ spec: spec("one"), tapNames: undefined, pool }).replica, undefined);
  again.close();
});

test("the schema allows one VM for each number, and keeps a deployment that has VMs", () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  const made = store.deployments.create({ name: "web", replicas: 2, spec: spec("web-1"), ...settings });
  const vm = makeReplica(store, made, 1);
  const twin = { deploymentId: made.id, index: 1, version: 1 };
  assert.throws(() => store.createVm({ spec: spec("web-9"), tapNames: undefined, pool, replica: twin }), /UNIQUE/);
  assert.throws(() => store.deployments.remove(made.id), /FOREIGN KEY/);
  store.deleteVm(vm.id);
  store.deployments.remove(made.id);
  store.close();
  const raw = new DatabaseSync(path);
  assert.equal(raw.prepare("SELECT count(*) AS count FROM deployment_versions").get()?.["count"], 0);
  raw.close();
});

test("a replica is given a version and started anew in one transaction, or not at all", () => {
  const store = openStore();
  const made = store.deployments.create({ name: "web", replicas: 1, spec: spec("web-1"), ...settings });
  const vm = makeReplica(store, made, 1);
  const updated = store.updateReplica(vm.id, 2, { basis: 1, spec: spec("web-1", "2") }, start);
  assert.deepEqual(
    [updated?.replica?.version, updated?.generation, updated?.spec.config.env, updated?.next],
    [2, 2, { A: "2" }, undefined],
  );
  assert.equal(
    store.updateReplica(vm.id, 3, { basis: 1, spec: spec("web-1", "3") }, start),
    undefined,
    "others were faster",
  );
  const taken = { ...spec("web-1", "3"), tap: "mine" };
  store.createVm({ spec: { ...spec("other"), tap: "mine" }, tapNames: ["mine"], pool });
  assert.throws(() => store.updateReplica(vm.id, 3, { basis: 2, spec: taken }, start), {
    code: "exists",
    message: /mine/,
  });
  const now = store.getVm(vm.id);
  assert.deepEqual([now?.replica?.version, now?.configVersion, now?.generation], [2, 2, 2]);
  const same = store.updateReplica(vm.id, 3, { basis: 2, spec: spec("web-1", "2") }, start);
  assert.deepEqual([same?.replica?.version, same?.generation], [3, 2], "what needs no start makes none");
  store.recordEnd(vm.id, 2, { status: "crashed", reason: "x" });
  assert.equal(
    store.updateReplica(vm.id, 4, { basis: 3, spec: spec("web-1", "2") }, start)?.generation,
    3,
    "one that is down is started",
  );
  store.close();
});

test("what stopped a roll-out is over with another version or a resume, and what is told late of another version is not written", () => {
  const store = openStore();
  const { deployments } = store;
  const { id } = deployments.create({ name: "web", replicas: 1, spec: spec("web-1"), ...settings });
  deployments.recordRollout(id, 1, { failure: undefined });
  assert.deepEqual(
    [deployments.get(id)?.rolledOut, deployments.change(id, { spec: spec("web-1", "2") }).version],
    [1, 2],
  );
  deployments.recordRollout(id, 1, { failure: "late news" });
  assert.equal(deployments.get(id)?.failure, undefined);
  deployments.recordRollout(id, 2, { failure: "ill" });
  assert.deepEqual([deployments.get(id)?.failure, deployments.get(id)?.rolledOut], ["ill", 1]);
  assert.equal(deployments.change(id, { replicas: 3, maxUnavailable: 2, readyTimeoutMs: 5 }).failure, "ill");
  assert.equal(deployments.change(id, { paused: false }).failure, undefined);
  deployments.recordRollout(id, 2, { failure: "ill" });
  const back = deployments.change(id, { version: 1 });
  assert.deepEqual([back.failure, back.version, back.replicas, back.maxUnavailable], [undefined, 1, 3, 2]);
  assert.equal(deployments.change(id, { spec: spec("web-1", "3") }).version, 3, "numbers are never used again");
  assert.throws(() => deployments.change(id, { version: 9 }), /no version 9/);
  store.close();
});

test("old versions are forgotten but for those that something has or wants; the files of those that are kept are needed", () => {
  const store = openStore();
  const { deployments } = store;
  const made = deployments.create({ name: "web", replicas: 1, spec: spec("web-1", "1"), ...settings });
  makeReplica(store, made, 1);
  for (let version = 2; version <= MAX_DEPLOYMENT_HISTORY + 4; version += 1) {
    deployments.change(made.id, { spec: spec("web-1", String(version)) });
    if (version === 3) deployments.recordRollout(made.id, 3, { failure: undefined });
  }
  const versions = deployments.history(made.id, -1).map(({ version }) => version);
  assert.deepEqual([versions.length, versions[0], versions.slice(-3)], [MAX_DEPLOYMENT_HISTORY + 2, 104, [5, 3, 1]]);
  assert.deepEqual(
    deployments.history(made.id, 1).map(({ replicas }) => replicas),
    [0],
  );
  const urls = new Set(store.filesInUse().map(({ url }) => url));
  assert.deepEqual(
    ["file:///1", "file:///2", "file:///3", "file:///104"].map((url) => urls.has(url)),
    [true, false, true, true],
  );
  store.close();
});

test("names of replicas are kept free from the moment that they are wanted, and no longer", () => {
  const store = openStore();
  const { deployments } = store;
  const vm = (name: string) => ({ spec: spec(name), tapNames: tapNames(name), pool });
  store.createVm(vm("web-3"));
  assert.throws(() => deployments.create({ name: "web", replicas: 3, spec: spec("web-1"), ...settings }), {
    code: "exists",
    message: /"web-3"/,
  });
  assert.deepEqual(deployments.list(), []);
  const { id } = deployments.create({ name: "web", replicas: 2, spec: spec("web-1"), ...settings });
  assert.throws(() => deployments.change(id, { replicas: 3, paused: true }), { code: "exists", message: /"web-3"/ });
  assert.deepEqual([deployments.get(id)?.replicas, deployments.get(id)?.paused], [2, false], "all of it or nothing");
  assert.throws(() => store.createVm(vm("web-2")), { code: "exists", message: /belongs to deployment "web"/ });
  deployments.change(id, { replicas: 1 });
  store.createVm(vm("web-2"));
  deployments.change(id, { deleting: true });
  store.createVm(vm("web-1"));
  store.close();
});
