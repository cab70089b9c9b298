import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { SseParser } from "./sse-parser.ts";

test("comments and retry lines are no events, an id stays until the next one", () => {
  const parser = new SseParser();
  assert.deepEqual(parser.push("retry: 1000\n\n: heartbeat\n\nid: 1\nevent: a\ndata: x\n\ndata: y\ndata:z\n\n"), [
    { id: "1", type: "a", data: "x" },
    { id: "1", type: "message", data: "y\nz" },
  ]);
});

test("events come out the same however their text is cut and whatever line break is used", () => {
  const line = fc.string({ unit: fc.constantFrom("a", " ", ":", "é", "\u2028", '"') });
  const events = fc.array(fc.record({ id: fc.nat(), data: fc.array(line, { minLength: 1, maxLength: 3 }) }), {
    maxLength: 5,
  });
  fc.assert(
    fc.property(events, fc.constantFrom("\n", "\r\n"), fc.array(fc.nat({ max: 30 })), (given, end, cuts) => {
      const text = given
        .map(({ id, data }) => [`id: ${id}`, "event: t", ...data.map((part) => `data: ${part}`), "", ""].join(end))
        .join("");
      const parser = new SseParser();
      const found = [];
      let at = 0;
      for (const cut of cuts) found.push(...parser.push(text.slice(at, (at += cut))));
      found.push(...parser.push(text.slice(at)));
      assert.deepEqual(
        found,
        given.map(({ id, data }) => ({ id: String(id), type: "t", data: data.join("\n") })),
      );
    }),
  );
});

test("an event without end is given up before it fills the memory", () => {
  const parser = new SseParser();
  assert.throws(() => {
    for (let count = 0; count < 10; count += 1) parser.push("x".repeat(1024 * 1024));
  }, RangeError);
});
