/** A wall clock that jumps, as the store sees it: addresses and answers are never wrong for it, only kept for longer or shorter. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, type TestContext } from "node:test";
import { parseSubnet, type AddressPool } from "../model/address.ts";
import { tapNames } from "../model/tap-name.ts";
import { vmSpec } from "../testing/vm-spec.ts";
import { SqliteStore } from "./sqlite-store.ts";

const directory = mkdtempSync(join(tmpdir(), "clock-"));
after(() => rmSync(directory, { recursive: true, force: true }));

/** Room for {@link ADDRESSES} VMs. */
const pool: AddressPool = { subnet: parseSubnet("10.0.0.0/29"), gateway: 0x0a000001 };
const ADDRESSES = 5;
const YEARS_MS = 10 * 365 * 24 * 60 * 60 * 1000;
const START_MS = Date.UTC(2026, 5, 1);
const JUMPS_MS = [YEARS_MS, -YEARS_MS, 60_000, -60_000];
let files = 0;

function openStore(t: TestContext, clock: { nowMs: number }): SqliteStore {
  files += 1;
  const store = SqliteStore.open({
    path: join(directory, `${files}.db`),
    now: () => new Date(clock.nowMs),
    newInstallation: () => "abcdef01",
  });
  t.after(() => store.close());
  return store;
}

function create(store: SqliteStore, name: string) {
  return store.createVm({ spec: vmSpec(name), tapNames: tapNames(name), pool });
}

for (const jumpMs of JUMPS_MS) {
  test(`a clock that jumps by ${jumpMs} ms leases no address twice, and keeps no resting one from being leased when all others are taken`, (t) => {
    const clock = { nowMs: START_MS };
    const store = openStore(t, clock);
    const held = new Map<string, number | undefined>();
    for (let vm = 0; vm < ADDRESSES; vm += 1) held.set(`vm-${vm}`, create(store, `vm-${vm}`).address);
    const released = store.findVm("vm-1");
    assert.ok(released !== undefined);
    store.setIntent(released.id, { desired: "absent", start: false });
    store.deleteVm(released.id);
    held.delete("vm-1");
    clock.nowMs += jumpMs;
    held.set("late", create(store, "late").address);
    assert.equal(new Set(held.values()).size, ADDRESSES);
    assert.throws(() => create(store, "too-many"), { code: "exhausted" });
  });
}

test("an answer to a request with a key outlives small jumps of the clock, and is forgotten, never mixed up, by large ones", (t) => {
  const clock = { nowMs: START_MS };
  const store = openStore(t, clock);
  const key = { scope: "vms.create", key: "k", fingerprint: "f", answer: () => '"made"' };
  store.createVm({ spec: vmSpec("web"), tapNames: tapNames("web"), pool, request: key });
  for (const jumpMs of [60_000, -60_000]) {
    clock.nowMs = START_MS + jumpMs;
    assert.deepEqual(store.answeredRequest("vms.create", "k"), { fingerprint: "f", answer: '"made"' });
  }
  for (const jumpMs of [YEARS_MS, -YEARS_MS]) {
    clock.nowMs = START_MS + jumpMs;
    assert.equal(store.answeredRequest("vms.create", "k"), undefined);
  }
});
