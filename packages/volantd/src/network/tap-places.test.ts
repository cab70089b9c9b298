import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { capacity, choosePlace, MANAGED, placeLimits } from "./tap-places.ts";
import { type Place, TapPlacing } from "./tap-placing.ts";

const NONE: ReadonlySet<number> = new Set();

test("a bridge of Linux's size holds 960 taps and 63 trunks, each further one 1,022 taps: 65,346 in all", () => {
  const limits = placeLimits(1023);
  assert.deepEqual([capacity(MANAGED, limits), limits.trunks, capacity(1, limits)], [960, 63, 1022]);
  assert.equal(capacity(MANAGED, limits) + limits.trunks * capacity(1, limits), 65_346);
});

test("the lowest place with a port left is chosen, names of others are passed over, and where all is full there is none", () => {
  const limits = { bridgePorts: 4, trunks: 2 };
  const chosen = (ports: readonly (readonly [number, number])[], taken = NONE) =>
    choosePlace({ ports: new Map(ports), taken }, limits);
  assert.equal(chosen([[MANAGED, 1]]), MANAGED);
  assert.equal(chosen([[MANAGED, 2]]), 1);
  assert.equal(chosen([[MANAGED, 2]], new Set([1, 2])), 3);
  assert.equal(
    chosen([
      [MANAGED, 2],
      [1, 3],
      [2, 2],
    ]),
    2,
  );
  assert.equal(
    chosen([
      [MANAGED, 2],
      [1, 3],
      [2, 3],
    ]),
    undefined,
  );
  // More ports than are for taps: what an earlier Volant, or a person, put there.
  assert.equal(chosen([[MANAGED, 4]]), 1);
});

/** Taps come, arrive, fail and go, and the host is looked at, in any order. */
const anyLife = fc.record({
  limits: fc.record({ bridgePorts: fc.integer({ min: 2, max: 6 }), trunks: fc.integer({ min: 1, max: 3 }) }),
  acts: fc.array(
    fc.record({ kind: fc.constantFrom("take", "arrive", "fail", "delete", "begin", "see"), which: fc.nat() }),
    { minLength: 100, maxLength: 200, size: "max" },
  ),
});

test("whatever comes at the same time: no bridge ever gets more taps than it has ports, and a lower one with a port left is never passed over", () => {
  fc.assert(
    fc.property(anyLife, ({ limits, acts }) => {
      const placing = new TapPlacing(limits);
      /** The kernel: taps by name. */
      const there = new Map<string, number>();
      const looks: { readonly look: number; readonly ports: Map<number, Set<string>> }[] = [];
      const pending: { readonly tap: string; readonly promise: Place }[] = [];
      const dump = () => {
        const ports = new Map<number, Set<string>>([[MANAGED, new Set()]]);
        for (const [tap, place] of there) ports.set(place, (ports.get(place) ?? new Set()).add(tap));
        return ports;
      };
      const pick = <Item>(items: readonly Item[], which: number) => items[which % Math.max(1, items.length)];
      let made = 0;
      for (const { kind, which } of acts) {
        const waiting = pick(pending, which);
        switch (kind) {
          case "take": {
            const tap = `tap${(made += 1)}`;
            const promise = placing.take(tap);
            if (promise !== undefined) pending.push({ tap, promise });
            break;
          }
          case "arrive":
          case "fail": {
            if (waiting === undefined) break;
            pending.splice(pending.indexOf(waiting), 1);
            if (kind === "arrive") there.set(waiting.tap, waiting.promise.place);
            waiting.promise.settle();
            for (const place of there.values()) {
              const count = [...there.values()].filter((other) => other === place).length;
              assert.ok(count <= capacity(place, limits), `${count} taps on bridge ${place}`);
            }
            break;
          }
          case "delete": {
            const tap = pick([...there.keys()], which);
            if (tap !== undefined) there.delete(tap);
            break;
          }
          case "begin":
            looks.push({ look: placing.begin(), ports: dump() });
            break;
          case "see": {
            const seen = pick(looks, which);
            if (seen === undefined) break;
            looks.splice(looks.indexOf(seen), 1);
            placing.seen(seen.look, seen.ports, () => false);
            break;
          }
        }
      }
      // At rest: all that is there is known, and the lowest place with a port left is next.
      for (const { promise } of pending) promise.settle();
      placing.seen(placing.begin(), dump(), () => false);
      assert.equal(placing.take("last")?.place, choosePlace({ ports: counts(dump()), taken: NONE }, limits));
      for (const [tap, place] of there) assert.equal(placing.of(tap), place);
    }),
    { numRuns: 500 },
  );
});

function counts(ports: ReadonlyMap<number, ReadonlySet<string>>): Map<number, number> {
  return new Map([...ports].map(([place, { size }]) => [place, size]));
}
