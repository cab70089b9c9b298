import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { SpareMemory } from "./spare-memory.ts";

const MIB = 1024 * 1024;
const LOOK_MS = 1000;
/** A collection is of use for so long. */
const SETTLING_MS = 15_000;
/** Looks after which what was left over is gone. */
const QUIET_LOOKS = 75;
const QUIET = 0.5;

/** A process as it was measured: garbage goes some seconds after a collection, what is free where it is given back. */
class Process {
  usedMib = 100;
  garbageMib = 0;
  freeMib = 0;
  nowMs = 0;
  collections: number[] = [];
  readonly #spare = new SpareMemory();
  #shrinkAtMs = Number.POSITIVE_INFINITY;

  get rssMib(): number {
    return this.usedMib + this.garbageMib + this.freeMib;
  }

  look(busy: number): void {
    this.nowMs += LOOK_MS;
    if (this.nowMs >= this.#shrinkAtMs && busy < QUIET) {
      this.garbageMib = 0;
      this.#shrinkAtMs = Number.POSITIVE_INFINITY;
    }
    const work = this.#spare.look({ nowMs: this.nowMs, rssBytes: this.rssMib * MIB, busy });
    if (work === "trim") this.freeMib = 0;
    if (work !== "collect") return;
    assert.ok(busy < QUIET, "nothing is collected while there is work");
    this.collections.push(this.nowMs);
    this.#shrinkAtMs = this.nowMs + 8000;
  }
}

const burst = fc.record({
  usedMib: fc.integer({ min: -40, max: 60 }),
  garbageMib: fc.integer({ min: 0, max: 60 }),
  freeMib: fc.integer({ min: 0, max: 30 }),
  looks: fc.integer({ min: 1, max: 30 }),
});

test("whatever a burst leaves over is given back once it is quiet, by one collection in 15 s, and by none while there is work", () => {
  let collections = 0;
  fc.assert(
    fc.property(fc.array(burst, { minLength: 1, maxLength: 8 }), (bursts) => {
      const process = new Process();
      process.look(0);
      for (const { usedMib, garbageMib, freeMib, looks } of bursts) {
        const before = process.usedMib;
        process.usedMib = Math.max(60, before + usedMib);
        // What is not used any more is garbage first.
        process.garbageMib += garbageMib + Math.max(0, before - process.usedMib);
        process.freeMib += freeMib;
        for (let count = 0; count < looks; count += 1) process.look(0.9);
        for (let count = 0; count < QUIET_LOOKS; count += 1) process.look(0.07);
        assert.equal(process.rssMib, process.usedMib);
      }
      for (const [index, atMs] of process.collections.entries()) {
        assert.ok(atMs - (process.collections[index - 1] ?? -SETTLING_MS) >= SETTLING_MS);
      }
      collections += process.collections.length;
    }),
  );
  assert.ok(collections > 0);
});

test("what was freed is given back in the middle of a burst, while nothing is collected, nor in a pause of it", () => {
  const process = new Process();
  process.look(0);
  process.look(0.9);
  for (let count = 0; count < 60; count += 1) {
    process.usedMib += 1;
    process.freeMib += 6;
    process.look(0.9);
    process.look(count % 4 === 0 ? 0.1 : 0.9);
    assert.ok(process.freeMib <= 6, `${process.freeMib} MiB are free`);
  }
  assert.deepEqual(process.collections, []);
  for (let count = 0; count < 10; count += 1) process.look(0.1);
  assert.equal(process.collections.length, 1);
});

test("garbage that gathers without a burst is collected when it is worth it, and a process that needs more than before is collected once for it", () => {
  const process = new Process();
  process.look(0);
  for (let count = 0; count < 500; count += 1) {
    process.garbageMib += 0.2;
    process.look(0.07);
    assert.ok(process.rssMib < process.usedMib + 20, `${process.rssMib} of which ${process.usedMib} are used`);
  }
  const { length } = process.collections;
  process.usedMib = 200;
  for (let count = 0; count < 500; count += 1) process.look(0.07);
  assert.equal(process.collections.length, length + 1);
});
