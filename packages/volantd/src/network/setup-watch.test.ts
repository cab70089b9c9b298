import assert from "node:assert/strict";
import test, { mock, type TestContext } from "node:test";
import { VolantError } from "@volant/contract";
import type { SetupCondition } from "@volant/host";
import { BUSY_EVERY_MS, PATIENT_WITH } from "../plan/setup-looks.ts";
import { SetupWatch } from "./setup-watch.ts";

const whole: SetupCondition = { state: "complete", missing: [], untold: false };
const damaged: SetupCondition = { state: "complete", missing: ["a rule"], untold: false };

/** A watch on a clock of its own. */
class Bench {
  condition: SetupCondition | VolantError = whole;
  nowMs = 0;
  looks = 0;
  damages = 0;
  readonly warnings: string[] = [];
  readonly stop = new AbortController();
  readonly watch = new SetupWatch({
    inspect: () => {
      this.looks += 1;
      return this.condition instanceof VolantError ? Promise.reject(this.condition) : Promise.resolve(this.condition);
    },
    monotonicMs: () => this.nowMs,
    onDamage: () => (this.damages += 1),
    warn: (_fields, message) => void this.warnings.push(message),
  });

  constructor(t: TestContext) {
    mock.timers.enable({ apis: ["setTimeout"] });
    t.after(() => mock.timers.reset());
    this.watch.begin(this.stop.signal);
  }

  async pass(ms: number): Promise<void> {
    for (let step = 0; step < ms; step += 10) {
      this.nowMs += 10;
      mock.timers.tick(10);
      await new Promise(setImmediate);
    }
  }
}

test("it looks once when it begins, and not again while nothing happens", async (t) => {
  const bench = new Bench(t);
  await bench.pass(60_000);
  assert.equal(bench.looks, 1);
  assert.equal(bench.damages, 0);
});

test("a burst of changes is one look, or two where it lasts", async (t) => {
  const bench = new Bench(t);
  await bench.pass(1000);
  for (let change = 0; change < 1000; change += 1) bench.watch.doubt();
  await bench.pass(10_000);
  assert.equal(bench.looks, 2);
});

test("damage is told, and known until it is put back, which one more look confirms", async (t) => {
  const bench = new Bench(t);
  await bench.pass(1000);
  bench.condition = damaged;
  bench.watch.doubt();
  await bench.pass(1000);
  assert.deepEqual([bench.damages, bench.watch.damaged], [1, true]);
  bench.condition = whole;
  bench.watch.restored();
  assert.equal(bench.watch.damaged, false);
  const { looks } = bench;
  await bench.pass(10_000);
  assert.deepEqual([bench.looks, bench.damages], [looks + 1, 1]);
});

test("what goes while things are put back, when nothing is judged, is found afterwards", async (t) => {
  const bench = new Bench(t);
  await bench.pass(1000);
  bench.condition = { ...damaged, state: "busy", missing: [] };
  bench.watch.doubt();
  await bench.pass(1000);
  assert.equal(bench.damages, 0);
  bench.condition = damaged;
  bench.watch.restored();
  await bench.pass(1000);
  assert.equal(bench.damages, 1);
});

test("after an undo nothing is missing any more", async (t) => {
  const bench = new Bench(t);
  bench.condition = damaged;
  await bench.pass(1000);
  assert.equal(bench.watch.damaged, true);
  bench.condition = { state: "absent", missing: [], untold: false };
  bench.watch.doubt();
  await bench.pass(1000);
  assert.deepEqual([bench.watch.damaged, bench.damages], [false, 1]);
});

test("somebody who removes it at once, again and again, is told of once, and given way to", async (t) => {
  const bench = new Bench(t);
  bench.condition = damaged;
  for (let second = 0; second < 600; second += 1) {
    bench.watch.restored();
    await bench.pass(1000);
  }
  assert.equal(bench.warnings.length, 1);
  assert.match(bench.warnings[0] ?? "", /again and again/);
  assert.ok(bench.damages > PATIENT_WITH && bench.damages < PATIENT_WITH + 30, `${bench.damages}`);
});

test("a record that can't be read is told of once, and looked at again", async (t) => {
  const bench = new Bench(t);
  bench.condition = new VolantError("wrong_state", "it is not JSON");
  await bench.pass(10 * BUSY_EVERY_MS);
  assert.equal(bench.warnings.length, 1);
  bench.condition = damaged;
  await bench.pass(2 * BUSY_EVERY_MS);
  assert.equal(bench.damages, 1);
});

test("nothing is looked at once watching has ended", async (t) => {
  const bench = new Bench(t);
  await bench.pass(1000);
  bench.stop.abort();
  bench.watch.doubt();
  await bench.pass(10_000);
  assert.equal(bench.looks, 1);
});
