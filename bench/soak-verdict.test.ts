import assert from "node:assert/strict";
import test from "node:test";
import { LEAST_SAMPLES, soakVerdict } from "./soak-verdict.ts";

const limits = { descriptors: { unit: "", part: 0.1, more: 4 } };

function isFlat(values: readonly number[]): boolean {
  const [verdict] = soakVerdict(
    values.map((descriptors) => ({ descriptors })),
    limits,
  );
  return verdict?.ok === true;
}

const series = (count: number, value: (index: number) => number) =>
  Array.from({ length: count }, (_none, index) => value(index));

test("what goes up and down around a middle is flat", () => {
  assert.ok(isFlat(series(120, (index) => 100 + (index % 5) * 10)));
});

test("what grows steadily is not, however slowly it does beside what is allowed", () => {
  assert.ok(!isFlat(series(120, (index) => 100 + index)));
  assert.ok(!isFlat(series(120, (index) => 100 + index / 4)));
});

test("growth within what is allowed, and what gets less, are flat", () => {
  assert.ok(isFlat(series(120, (index) => 100 + index / 10)));
  assert.ok(isFlat(series(120, (index) => 200 - index)));
});

test("what happens in the warm-up does not count, and one sample that is far off does not either", () => {
  assert.ok(isFlat(series(100, (index) => (index < 20 ? index * 5 : 100))));
  assert.ok(isFlat(series(100, (index) => (index === 90 ? 10_000 : 100))));
});

test("a step that stays is found, also from nothing", () => {
  assert.ok(!isFlat(series(100, (index) => (index < 60 ? 0 : 5))));
});

test("too few samples are refused", () => {
  assert.throws(() => isFlat(series(LEAST_SAMPLES - 1, () => 1)), /8 samples say nothing/);
});
