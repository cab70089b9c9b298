import assert from "node:assert/strict";
import test from "node:test";
import { beforeEscape, DEFAULT_ESCAPE, escapeKey, keyName } from "./escape-key.ts";

test("an escape key is written as people write control keys, or none", () => {
  assert.equal(escapeKey("^]"), DEFAULT_ESCAPE);
  assert.deepEqual([escapeKey("^a"), escapeKey("ctrl-A"), escapeKey("^@"), escapeKey("^_")], [1, 1, 0, 31]);
  assert.equal(escapeKey("none"), undefined);
  for (const text of ["", "]", "^", "^1", "^ab", "escape"]) assert.throws(() => escapeKey(text), text);
  assert.deepEqual([keyName(0x1d), keyName(1)], ["Ctrl-]", "Ctrl-A"]);
});

test("what was typed before the key goes to the guest, the key and what follows do not", () => {
  const bytes = Buffer.from("ab\u001dcd");
  assert.deepEqual(beforeEscape(bytes, 0x1d), { typed: bytes.subarray(0, 2), isLeft: true });
  assert.deepEqual(beforeEscape(bytes, 1), { typed: bytes, isLeft: false });
  assert.deepEqual(beforeEscape(bytes, undefined), { typed: bytes, isLeft: false });
});
