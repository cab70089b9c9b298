/** How points are called, chosen and listed. */
import assert from "node:assert/strict";
import test from "node:test";
import { bestFirst, chooseMoments, momentsOf, writesOf } from "./choice.ts";
import { differingFunctions, functionsOf, listText } from "./list.ts";
import { pointName } from "./point-name.ts";
import { untold } from "./told.ts";

const SOURCE = `async function launch() {
  await prepare();
  const made = await Promise.all([
    one(),
    two(),
  ]);
  await prepare();
  spawn(made);
}`;

test("an await is called by the line on which it begins, and the second of two that read the same is told from the first", () => {
  const name = (line: number, isAwait = true): string =>
    pointName({ file: "a.ts", functionName: "launch", line, isAwait }, SOURCE);
  assert.equal(name(2), "a.ts launch: await prepare();");
  assert.equal(name(5), "a.ts launch: const made = await Promise.all([");
  assert.equal(name(7), "a.ts launch: await prepare(); [2]");
  assert.equal(name(8, false), "a.ts launch: spawn(made);");
});

test("a moment is chosen when it has a point that is new, or when a write of the store's begins it", () => {
  const write = "volantd/src/store/sqlite-store.ts recordEnd: this.#sql( {UPDATE vms SET ended = ?} (after)";
  const moments = momentsOf([
    ["a.ts f: await g(); (waits)", 1],
    ["a.ts f: await g(); (goes on)", 2],
    ["a.ts f: await g(); (waits) #2", 2],
    [write, 3],
    ["a.ts f: await g(); (goes on) #2", 4],
  ]);
  const covered = new Set<string>();
  const [first, second, third] = moments;
  assert.deepEqual(chooseMoments(moments, covered), [first, second, third], "the last one has nothing new");
  assert.deepEqual(chooseMoments(moments, covered), [third]);
  assert.deepEqual([...writesOf(covered)], ["UPDATE vms SET ended = ?"]);
});

test("points that another run may count differently are tried last", () => {
  assert.deepEqual(bestFirst({ points: ["b #2", "a", "c #7"] }), ["a", "b #2", "c #7"]);
});

test("a function that is passed no longer, or is new in every run, is told apart from what the list has", () => {
  const [waits, spawned] = ["a.ts f: await g(); (waits)", "b.ts h: spawn(x); (before)"];
  const list = listText(
    [waits, "a.ts f: await g(); (goes on)", spawned, "c.ts timer: await t(); (waits)"],
    functionsOf([waits, spawned]),
  );
  assert.match(list, /\na\.ts f\n {2}await g\(\);\n\nb\.ts h\n {2}spawn\(x\);\n$/);
  const differing = (steady: readonly string[], passed: readonly string[]): string[] =>
    differingFunctions(list, functionsOf(steady), functionsOf(passed));
  assert.deepEqual(
    differing(["a.ts f: await other(); (waits)"], [waits, spawned, "c.ts timer: await t(); (waits)"]),
    [],
  );
  assert.deepEqual(differing([waits, "d.ts i: await j(); (waits)"], [waits]), [
    "not in the list: d.ts i",
    "not passed any longer: b.ts h",
  ]);
});

test("an event that is missing, told twice or not to be told is named; changes may be told more often", () => {
  assert.deepEqual(untold(["VM_CREATED a", "VM_UPDATED a"], ["VM_UPDATED a", "VM_CREATED a", "VM_UPDATED a"]), []);
  assert.deepEqual(untold([], ["VM_UPDATED a"]), []);
  assert.deepEqual(untold(["VM_CREATED a", "VM_UPDATED a", "VM_RUNNING a"], ["VM_RUNNING a", "VM_RUNNING a"]), [
    "VM_CREATED a: 0 times instead of 1",
    "VM_UPDATED a: 0 times instead of 1",
    "VM_RUNNING a: 2 times instead of 1",
  ]);
});
