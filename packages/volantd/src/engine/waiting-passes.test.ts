import assert from "node:assert/strict";
import test from "node:test";
import { Bench, request } from "../testing/engine-bench.ts";
import { HeldDisk, turns } from "../testing/held-disk.ts";

test("a VM whose turn comes late is compared with the host as it was seen last, and not as it was when the VM began to wait", async () => {
  const disk = new HeldDisk();
  const bench = new Bench(disk.sync);
  const running = await bench.open(undefined, { parallel: 1 });
  const reasons: string[] = [];
  const record = bench.store.recordStatus.bind(bench.store);
  bench.store.recordStatus = (id, status, reason) => {
    if (reason !== undefined) reasons.push(reason);
    record(id, status, reason);
  };
  await bench.store.settled();
  // The only slot is taken by a VM whose first step waits for the disk.
  disk.hold();
  await running.vms.create(request("first"));
  await turns();
  await running.vms.create(request("waits"));
  bench.host.bridge = "missing";
  await turns();
  const looks = bench.host.looks;
  bench.host.bridge = "up";
  await running.vms.create(request("last"));
  await turns();
  assert.equal(bench.host.looks, looks + 1, "the host was looked at anew, for another VM");
  disk.release();
  await bench.settle(running);
  bench.assertAgreement();
  assert.deepEqual(
    reasons.filter((reason) => /bridge/.test(reason)),
    [],
    "nobody is told of a bridge that is there again",
  );
  await running.engine.close();
  bench.store.close();
});
