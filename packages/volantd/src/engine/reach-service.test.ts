import assert from "node:assert/strict";
import test from "node:test";
import { Bench, request, type Running } from "../testing/engine-bench.ts";
import { ADOPTION_MS, ReachService } from "./reach-service.ts";

const signal = new AbortController().signal;

/** A volantd that has found a VM that ran before it, and has not connected to its agent yet. */
async function adopting(): Promise<{ bench: Bench; volantd: Running; reach: ReachService; clock: { ms: number } }> {
  const bench = new Bench();
  const first = await bench.open();
  await first.vms.create(request("web"));
  await bench.settle(first);
  await first.engine.close();
  const volantd = await bench.open(undefined, { adoptOnly: true });
  const clock = { ms: 0 };
  const reach = new ReachService({ store: bench.store, engine: volantd.engine, monotonicMs: () => clock.ms });
  return { bench, volantd, reach, clock };
}

test("whoever wants into a guest while volantd connects to its agent again waits for that, by whichever way", async () => {
  const { bench, volantd, reach } = await adopting();
  const { id } = volantd.vms.get("web");
  const settled: string[] = [];
  const ways = {
    exec: () => reach.exec("web", signal),
    forward: () => reach.forward("web", 80, signal),
    dial: () => reach.dial(id, 80, signal),
    workload: () => reach.workload("web").connect(signal),
    health: () => reach.agentHealth("web", signal),
    read: () => reach.read("web", "/etc/hosts", signal),
  };
  const all = Object.entries(ways).map(([way, go]) => go().finally(() => settled.push(way)));
  for (let turn = 0; turn < 50; turn += 1) await new Promise(setImmediate);
  assert.deepEqual(settled, []);
  volantd.engine.begin();
  await Promise.all(all);
  assert.equal(settled.length, Object.keys(ways).length);
  await volantd.engine.close();
  bench.store.close();
});

test("later, and where the VM does not run, or is gone meanwhile, it is refused at once", async () => {
  const { bench, volantd, reach, clock } = await adopting();
  const gone = new AbortController();
  const left = assert.rejects(reach.exec("web", gone.signal), { name: "AbortError" });
  gone.abort();
  await left;
  const waits = assert.rejects(reach.exec("web", signal), { code: "not_found" });
  await volantd.vms.create(request("other"));
  await assert.rejects(reach.exec("other", signal), {
    code: "guest_unreachable",
    message: 'the agent of VM "other" is not connected: it is pending',
  });
  await assert.rejects(reach.exec("nobody", signal), { code: "not_found" });
  clock.ms = ADOPTION_MS;
  await assert.rejects(reach.exec("web", signal), {
    code: "guest_unreachable",
    message: 'the agent of VM "web" is not connected: it is running',
  });
  volantd.engine.begin();
  await volantd.vms.delete("web");
  await waits;
  await volantd.engine.close();
  bench.store.close();
});
