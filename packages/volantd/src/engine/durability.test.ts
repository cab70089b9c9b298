import assert from "node:assert/strict";
import test from "node:test";
import { Bench, managed, request } from "../testing/engine-bench.ts";
import { HeldDisk, turns } from "../testing/held-disk.ts";
import { MemoryImages } from "../testing/memory-host.ts";
import { PluginService } from "./plugin-service.ts";

test("nothing is done to the host for a VM before what it is done for would outlive a power failure", async () => {
  const disk = new HeldDisk();
  const bench = new Bench(disk.sync);
  const life = await bench.open();
  await bench.store.settled();
  disk.hold();
  await life.vms.create(request("web"));
  await turns();
  const { host } = bench;
  assert.deepEqual([host.policies.size, host.taps.size, host.neighbours.size, host.processes.size], [0, 0, 0, 0]);
  disk.release();
  await bench.settle(life);
  bench.assertAgreement();
  assert.equal(host.processes.size, 1);

  await bench.store.settled();
  disk.hold();
  const gone = life.vms.delete("web");
  await turns();
  assert.equal(host.processes.size, 1, "a deletion that may be forgotten has not begun");
  disk.release();
  await gone;
  assert.equal(host.processes.size, 0);
  await life.engine.close();
  bench.store.close();
});

test("a file that a removed plugin booted from stays until the removal would outlive a power failure", async () => {
  const disk = new HeldDisk();
  const bench = new Bench(disk.sync);
  const images = new MemoryImages();
  let isPruned = false;
  images.prune = async () => void (isPruned = true);
  const log = { info: () => {}, warn: () => {}, error: () => {} };
  const plugins = new PluginService({ store: bench.store, images, managed, log, monotonicMs: () => performance.now() });
  disk.hold();
  const removed = plugins.remove("hello");
  await turns();
  assert.equal(isPruned, false);
  disk.release();
  await removed;
  assert.equal(isPruned, true);
  bench.store.close();
});
