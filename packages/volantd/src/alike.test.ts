import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Alike } from "./alike.ts";

test("whatever is given, what comes back says the same; what was said under that key a moment ago comes back itself", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom("a", "b"), fc.jsonValue({ maxDepth: 2 }))), (given) => {
      const alike = new Alike<unknown>();
      for (const [key, value] of given) {
        const first = alike.of(key, value);
        assert.deepEqual(first, value);
        assert.equal(alike.of(key, structuredClone(value)), first);
      }
    }),
  );
});
