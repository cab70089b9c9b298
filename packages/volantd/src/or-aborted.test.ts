import assert from "node:assert/strict";
import test from "node:test";
import { orAborted } from "./or-aborted.ts";

test("a promise that nobody waits for any more may be rejected, before and after the abort", async (context) => {
  const unheard: unknown[] = [];
  const note = (reason: unknown): void => void unheard.push(reason);
  process.on("unhandledRejection", note);
  context.after(() => process.off("unhandledRejection", note));
  const aborting = new AbortController();
  const [late, never] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const waiting = orAborted(late.promise, aborting.signal);
  aborting.abort(new Error("given up"));
  await assert.rejects(waiting, /given up/);
  await assert.rejects(orAborted(never.promise, aborting.signal), /given up/);
  late.reject(new Error("late"));
  never.reject(new Error("never"));
  await new Promise(setImmediate);
  assert.deepEqual(unheard, []);
});

test("what comes before the abort is passed on, value or error", async () => {
  const { signal } = new AbortController();
  assert.equal(await orAborted(Promise.resolve(5), signal), 5);
  await assert.rejects(orAborted(Promise.reject(new Error("broken")), signal), /broken/);
});
