import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { returnFreeMemory } from "./free-memory.ts";

const BLOCK_BYTES = 4096;
const BLOCKS = 20_000;
/** Of so many blocks one stays in use, so that the rest is not in one piece. */
const KEPT_OF = 100;

test("what was freed between what is still in use is given back", async (context) => {
  if (
    (process.report.getReport() as { header: { glibcVersionRuntime?: string } }).header.glibcVersionRuntime ===
    undefined
  ) {
    return context.skip("this C library is not GNU's, and gives memory back in its own way");
  }
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  // Loads what the call needs.
  await returnFreeMemory();
  const blocks = Array.from({ length: BLOCKS }, () => Buffer.allocUnsafeSlow(BLOCK_BYTES).fill(1));
  const kept = blocks.filter((_block, index) => index % KEPT_OF === 0);
  blocks.length = 0;
  collect();
  // Buffers that nothing refers to are freed after the collection, by a thread of V8's own.
  const keptBytes = kept.length * BLOCK_BYTES;
  while (process.memoryUsage().arrayBuffers > 2 * keptBytes) await delay(5);
  const beforeBytes = process.memoryUsage.rss();
  await returnFreeMemory();
  const returnedBytes = beforeBytes - process.memoryUsage.rss();
  assert.ok(
    returnedBytes > (BLOCKS * BLOCK_BYTES) / 2,
    `${returnedBytes} of ${BLOCKS * BLOCK_BYTES} bytes were given back`,
  );
  assert.ok(kept.every((block) => block.every((byte) => byte === 1)));
});
