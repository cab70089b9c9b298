import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import fc from "fast-check";
import { SyncScanner, syncLine } from "./stream-sync.ts";

interface GoldenStream {
  readonly name: string;
  readonly nonce: string;
  readonly received_hex: string;
  readonly rest_hex: string | null;
}

const golden = JSON.parse(
  readFileSync(new URL("../../../../kestrel/golden/stream-sync.json", import.meta.url), "utf8"),
) as GoldenStream[];

function scan(nonce: string, bytes: Buffer, size: number): Buffer | undefined {
  const scanner = new SyncScanner(nonce);
  for (let at = 0; at < bytes.length; at += size) {
    const used = scanner.feed(bytes.subarray(at, at + size));
    if (used !== undefined) return bytes.subarray(at + used);
  }
  return undefined;
}

test("golden streams begin where they say, however they are cut", () => {
  assert.ok(golden.length >= 5);
  for (const { name, nonce, received_hex, rest_hex } of golden) {
    const bytes = Buffer.from(received_hex, "hex");
    for (let size = 1; size <= bytes.length; size++) {
      assert.equal(scan(nonce, bytes, size)?.toString("hex"), rest_hex ?? undefined, `${name}, cut by ${size}`);
    }
  }
});

test("the line is found behind any stale bytes, where a plain search finds it", () => {
  const nonce = "0123456789abcdef0123456789abcdef";
  const line = syncLine(nonce);
  const stale = fc.array(fc.oneof(fc.constantFrom("v", "vo", "volant-stream ", line.slice(0, 20)), fc.string()));
  fc.assert(
    fc.property(stale, fc.integer({ min: 1, max: 64 }), (parts, size) => {
      const bytes = Buffer.from(`${parts.join("")}${line}rest`);
      const expected = bytes.subarray(bytes.indexOf(line) + line.length);
      assert.deepEqual(scan(nonce, bytes, size), expected);
    }),
  );
});
