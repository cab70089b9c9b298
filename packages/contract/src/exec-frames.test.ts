import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import {
  encodeExecFrame,
  encodeExecStart,
  ExecFrameDecoder,
  MAX_EXEC_PAYLOAD_BYTES,
  parseExecError,
  parseExecExit,
  type ExecFrame,
} from "./exec-frames.ts";

interface Golden {
  readonly name: string;
  readonly whole: boolean;
  readonly hex: string;
  readonly frames: readonly { readonly kind: number; readonly payload_hex: string }[] | null;
}

const golden = JSON.parse(
  readFileSync(join(import.meta.dirname, "../../../kestrel/golden/exec-frames.json"), "utf8"),
) as Golden[];

function decode(bytes: Uint8Array, size: number): ExecFrame[] {
  const decoder = new ExecFrameDecoder();
  const frames: ExecFrame[] = [];
  for (let at = 0; at < bytes.length; at += size) frames.push(...decoder.feed(bytes.subarray(at, at + size)));
  return frames;
}

const plain = (frames: readonly ExecFrame[]) =>
  frames.map(({ kind, payload }) => ({ kind, payload_hex: Buffer.from(payload).toString("hex") }));

test("golden frames mean what they say however they are cut, and are written the same way", () => {
  assert.ok(golden.length >= 5);
  for (const { name, hex, frames, whole } of golden) {
    const bytes = new Uint8Array(Buffer.from(hex, "hex"));
    for (let size = 1; size <= bytes.length; size += 1) {
      if (frames === null) assert.throws(() => decode(bytes, size), { code: "guest_unreachable" }, name);
      else assert.deepEqual(plain(decode(bytes, size)), frames, `${name} cut by ${size}`);
    }
    if (!whole) continue;
    const again = decode(bytes, bytes.length).map(({ kind, payload }) => encodeExecFrame(kind, payload));
    assert.equal(Buffer.concat(again).toString("hex"), hex, name);
  }
});

test("any frames survive any cutting", () => {
  const frame = fc.record({ kind: fc.integer({ min: 0, max: 255 }), payload: fc.uint8Array({ maxLength: 40 }) });
  fc.assert(
    fc.property(fc.array(frame), fc.integer({ min: 1, max: 9 }), (frames, size) => {
      const bytes = Buffer.concat(frames.map(({ kind, payload }) => encodeExecFrame(kind, payload)));
      assert.deepEqual(plain(decode(bytes, size)), plain(frames));
    }),
  );
});

test("a command that does not fit is refused, and a payload that does not is a bug", () => {
  assert.throws(() => encodeExecStart({ argv: ["x".repeat(MAX_EXEC_PAYLOAD_BYTES)] }), { code: "too_large" });
  assert.throws(() => encodeExecFrame(1, new Uint8Array(MAX_EXEC_PAYLOAD_BYTES + 1)), RangeError);
});

test("a guest's word on an ending is taken only when it is one", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  assert.deepEqual(parseExecExit(bytes('{"code":3}')), { code: 3 });
  assert.deepEqual(parseExecExit(bytes('{"signal":9}')), { signal: 9 });
  for (const text of ['{"code":-1}', '{"code":256}', '{"signal":0}', '{"code":"1"}', "null", "[]", "x"]) {
    assert.equal(parseExecExit(bytes(text)), undefined, text);
  }
  assert.deepEqual(parseExecError(bytes('{"error":"no","code":"not_found"}')), { error: "no", code: "not_found" });
  assert.equal(parseExecError(bytes("nonsense")).code, "failed");
});
