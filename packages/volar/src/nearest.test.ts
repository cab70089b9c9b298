import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { editDistance, nearestNames } from "./nearest.ts";

test("the distance counts letters put in, left out, changed, and swapped with their neighbour", () => {
  const cases: [string, string, number][] = [
    ["web", "web", 0],
    ["web", "webs", 1],
    ["web", "wb", 1],
    ["web", "wob", 1],
    ["web", "wbe", 1],
    ["", "abc", 3],
    ["kitten", "sitting", 3],
  ];
  for (const [a, b, distance] of cases) assert.equal(editDistance(a, b), distance, `${a} ${b}`);
});

test("the distance is the same both ways, and never more than the longer word has letters", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (a, b) => {
      const distance = editDistance(a, b);
      return (
        distance === editDistance(b, a) && distance <= Math.max(a.length, b.length) && (distance === 0) === (a === b)
      );
    }),
  );
});

test("only names that are near are suggested, the nearest alone, at most three", () => {
  const names = ["web-1", "web-2", "db", "proxy", "WEB-3", "web-4"];
  assert.deepEqual(nearestNames("wbe-1", names), ["web-1"]);
  assert.deepEqual(nearestNames("web-9", names), ["WEB-3", "web-1", "web-2"]);
  assert.deepEqual(nearestNames("prxy", names), ["proxy"]);
  assert.deepEqual(nearestNames("queue", names), []);
  assert.deepEqual(nearestNames("", names), []);
  assert.deepEqual(nearestNames("web-1", ["web-1"]), [], "a name is no suggestion for itself");
});
