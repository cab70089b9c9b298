import assert from "node:assert/strict";
import { buffer } from "node:stream/consumers";
import test from "node:test";
import fc from "fast-check";
import { BLOCK_BYTES, checksumOf, encodeTarEntry, paddingOf, TAR_END, type TarEntry } from "./header.ts";
import { TarReader } from "./reader.ts";

interface Whole {
  readonly entry: TarEntry;
  readonly body: Uint8Array;
}

function archive(entries: readonly Whole[]): Buffer {
  return Buffer.concat([
    ...entries.flatMap(({ entry, body }) => [encodeTarEntry(entry), body, Buffer.alloc(paddingOf(body.length))]),
    TAR_END,
  ]);
}

async function* cutInto(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function readAll(source: AsyncIterable<Uint8Array>): Promise<Whole[]> {
  const reader = new TarReader(source);
  const found: Whole[] = [];
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    found.push({ entry, body: await buffer(reader.body()) });
  }
  return found;
}

/** Names of any length and any characters, control characters and line breaks included, but the ones that a name can't have. */
const name = fc
  .string({ unit: "binary", minLength: 1, maxLength: 300 })
  .map((text) => text.toWellFormed().replaceAll("\0", "x").replace(/\/+$/, "x"));
const whole: fc.Arbitrary<Whole> = fc
  .record({
    name,
    kind: fc.constantFrom("file" as const, "directory" as const, "symlink" as const),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    mtime: fc.integer({ min: 0, max: 2 ** 33 - 1 }),
    target: name,
    body: fc.uint8Array({ maxLength: 1500 }),
  })
  .map(({ body, target, ...rest }) => {
    const own = rest.kind === "file" ? body : new Uint8Array();
    return { entry: { ...rest, size: own.length, target: rest.kind === "symlink" ? target : "" }, body: own };
  });

test("what is written is read, however it is cut into pieces", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(whole, { maxLength: 5 }), fc.integer({ min: 1, max: 2000 }), async (entries, size) => {
      const found = await readAll(cutInto(archive(entries), size));
      assert.deepEqual(
        found.map(({ entry, body }) => ({ entry, body: Buffer.from(body).toString("hex") })),
        entries.map(({ entry, body }) => ({ entry, body: Buffer.from(body).toString("hex") })),
      );
    }),
    { numRuns: 200 },
  );
});

test("an archive that is cut anywhere, or damaged in any byte, is refused or read, and never a bug", async () => {
  const sample = archive([
    {
      entry: { name: "n".repeat(200), kind: "file", mode: 0o644, mtime: 1, size: 30, target: "" },
      body: Buffer.alloc(30),
    },
  ]);
  for (let length = 0; length < sample.length - BLOCK_BYTES; length += 7) {
    await assert.rejects(readAll(cutInto(sample.subarray(0, length), 512)), { code: "guest_unreachable" });
  }
  await fc.assert(
    fc.asyncProperty(fc.nat(sample.length - 1), fc.nat(255), async (at, value) => {
      const damaged = Buffer.from(sample);
      damaged[at] = value;
      await readAll(cutInto(damaged, 512)).catch((error: { code?: string }) => {
        if (error.code !== "guest_unreachable") throw error;
      });
    }),
    { numRuns: 500 },
  );
});

/** A header whose field is overwritten, with its sum put right. */
function forged(offset: number, bytes: Uint8Array): Buffer {
  const block = Buffer.from(encodeTarEntry({ name: "x", kind: "file", mode: 0o644, mtime: 0, size: 0, target: "" }));
  block.set(bytes, offset);
  block.write(`${checksumOf(block).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return block;
}

test("absurd sizes are refused before a byte of them is asked for", async () => {
  const cases: Buffer[] = [
    forged(124, Buffer.from("-0000000001\0")),
    forged(124, Buffer.from([0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
    forged(124, Buffer.alloc(12, 0xff)),
  ];
  // 8 GiB, which would be held whole.
  const extended = Buffer.from(forged(156, Buffer.from("x")));
  extended.write("77777777777\0", 124, "latin1");
  extended.write(`${checksumOf(extended).toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  for (const block of [...cases, extended]) {
    await assert.rejects(readAll(cutInto(Buffer.concat([block, TAR_END]), 512)), { code: "guest_unreachable" });
  }
});

test("a file of more than 8 GiB keeps its size", async () => {
  const entry = { name: "large", kind: "file", mode: 0o600, mtime: 5, size: 2 ** 40 + 1, target: "" } as const;
  assert.deepEqual(await new TarReader(cutInto(encodeTarEntry(entry), 512)).next(), entry);
});
