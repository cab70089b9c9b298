import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import test from "node:test";
import fc from "fast-check";
import { decodeLz4Legacy, Lz4Error, LZ4_LEGACY_MAGIC } from "./lz4.ts";

const hasLz4 = (() => {
  try {
    execFileSync("lz4", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

function frame(...blocks: Uint8Array[]): Uint8Array {
  const word = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  return Buffer.concat([word(LZ4_LEGACY_MAGIC), ...blocks.flatMap((block) => [word(block.length), block])]);
}

/** A block of literals only, the one form that needs no search for matches. */
function literalBlock(content: Uint8Array): Uint8Array {
  const lengths = [];
  if (content.length >= 15) {
    let rest = content.length - 15;
    for (; rest >= 255; rest -= 255) lengths.push(255);
    lengths.push(rest);
  }
  return Buffer.concat([Buffer.from([Math.min(content.length, 15) << 4, ...lengths]), content]);
}

test("a frame of literals gives them back, whatever their length", () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 2000 }), { maxLength: 4 }), (contents) => {
      const whole = Buffer.concat(contents);
      const packed = frame(...contents.map(literalBlock));
      assert.deepEqual(Buffer.from(decodeLz4Legacy(packed, whole.length)), whole);
    }),
  );
});

test("a match that overlaps what it writes repeats the pattern", () => {
  // Two literals "ab", then a match of 4 + 3 bytes at offset 2, then the closing literal "!".
  const block = Buffer.from([0x23, 0x61, 0x62, 0x02, 0x00, 0x10, 0x21]);
  assert.equal(Buffer.from(decodeLz4Legacy(frame(block), 64)).toString(), "ababababa!");
});

test("what lz4 -l packs comes back as it was", { skip: hasLz4 ? false : "no lz4 program here" }, () => {
  const word = fc.constantFrom("abc", "abcabcabc", "\0".repeat(300), "kernel ", "x");
  fc.assert(
    fc.property(fc.array(fc.oneof(word, fc.string()), { minLength: 1, maxLength: 200 }), (words) => {
      const content = Buffer.from(words.join("") + ".");
      const packed = execFileSync("lz4", ["-l", "-9", "-c"], { input: content, stdio: ["pipe", "pipe", "ignore"] });
      assert.deepEqual(Buffer.from(decodeLz4Legacy(packed, content.length)), content);
    }),
    { numRuns: 40 },
  );
});

test("hostile bytes end in Lz4Error or in content within the limit, never otherwise", () => {
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.array(fc.uint8Array({ minLength: 1, maxLength: 100 }), { maxLength: 4 }).map((blocks) => frame(...blocks)),
    fc
      .tuple(fc.uint8Array({ minLength: 20, maxLength: 200 }), fc.nat(300), fc.nat(255))
      .map(([content, position, value]) => {
        const packed = Buffer.from(frame(literalBlock(content)));
        packed[position % packed.length] = value;
        return packed;
      }),
  );
  fc.assert(
    fc.property(hostile, fc.nat(4096), (bytes, limit) => {
      try {
        assert.ok(decodeLz4Legacy(bytes, limit).length <= limit);
      } catch (error) {
        assert.ok(error instanceof Lz4Error, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test("content over the limit is refused", () => {
  assert.throws(() => decodeLz4Legacy(frame(literalBlock(Buffer.alloc(100))), 99), Lz4Error);
});
