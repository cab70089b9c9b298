import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { LineReader } from "./line-reader.ts";

const BEAT = '{"type":"beat"}';

/** What guests might say in place of a beat: beats, pieces of them, and what lies around lines. */
const piece = fc.oneof(fc.constantFrom(BEAT, `\n${BEAT}\n`, `${BEAT}\n`, "\n", BEAT.slice(0, 7), "é"), fc.string());

test("bytes that are said to be a line are just what reading them would give, whatever came before", () => {
  const seen = { line: 0, other: 0 };
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 6 }), (pieces) => {
      const [asked, fed] = [new LineReader(64), new LineReader(64)];
      for (const bytes of pieces.map((text) => Buffer.from(text))) {
        const lines = fed.feed(bytes);
        if (asked.isLine(bytes, BEAT)) {
          assert.deepEqual(lines, [BEAT]);
          seen.line += 1;
        } else {
          assert.deepEqual(asked.feed(bytes), lines);
          seen.other += 1;
        }
      }
    }),
  );
  assert.ok(seen.line > 0 && seen.other > 0);
});

test("an agent's beat is known without being read", () => {
  const reader = new LineReader(64);
  assert.equal(reader.isLine(Buffer.from(`\n${BEAT}\n`), BEAT), true);
  assert.equal(reader.isLine(Buffer.from(`${BEAT}\n${BEAT}\n`), BEAT), false);
  reader.feed(Buffer.from("begun"));
  assert.equal(reader.isLine(Buffer.from(`\n${BEAT}\n`), BEAT), false);
});
