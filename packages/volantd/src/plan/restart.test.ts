import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { HUNG, LAUNCH_FAILED, wantsRestart } from "../model/restart-policy.ts";
import { restartDelayMs, restartDueMs, RESTART_TIMES } from "./restart.ts";

const times = fc
  .record({ firstMs: fc.integer({ min: 1, max: 10_000 }), factor: fc.integer({ min: 1, max: 1000 }) })
  .map(({ firstMs, factor }) => ({ firstMs, lastMs: firstMs * factor, steadyMs: 1 }));
const count = fc.integer({ min: 0, max: 1_000_000 });

test("waits before restarts begin with the first, never get shorter, double until the ceiling and never pass it", () => {
  fc.assert(
    fc.property(times, count, (given, failures) => {
      const [delay, next] = [restartDelayMs(failures, given), restartDelayMs(failures + 1, given)];
      assert.equal(restartDelayMs(0, given), given.firstMs);
      assert.ok(next >= delay && delay >= given.firstMs && next <= given.lastMs);
      assert.ok(next === 2 * delay || next === given.lastMs);
    }),
  );
  const usual = Array.from({ length: 8 }, (_none, failures) => restartDelayMs(failures, RESTART_TIMES) / 1000);
  assert.deepEqual(usual, [1, 2, 4, 8, 16, 32, 60, 60]);
});

test("however the wall clock was set, a restart comes after no more than its whole delay, and never before now", () => {
  const ms = fc.integer({ min: -1e13, max: 1e13 });
  fc.assert(
    fc.property(ms, ms, fc.nat(1e9), fc.nat(60_000), (restartAtMs, wallMs, nowMs, delayMs) => {
      const dueMs = restartDueMs({ restartAtMs, wallMs, nowMs, delayMs });
      assert.ok(dueMs >= nowMs && dueMs <= nowMs + delayMs);
      if (restartAtMs - wallMs >= 0 && restartAtMs - wallMs <= delayMs)
        assert.equal(dueMs - nowMs, restartAtMs - wallMs);
    }),
  );
});

test("on-failure is for what went wrong, always for every end that no user asked for, no for none", () => {
  const crashes = ["guest-panic", "host-signal", "error", "unknown", LAUNCH_FAILED, HUNG, undefined];
  for (const cause of crashes) assert.ok(wantsRestart("on-failure", { status: "crashed", cause }), String(cause));
  const wished = [
    { status: "stopped", cause: "guest-shutdown" },
    { status: "crashed", cause: "guest-reset" },
  ] as const;
  for (const end of wished) assert.ok(!wantsRestart("on-failure", end), end.cause);
  for (const end of [...wished, { status: "crashed", cause: "guest-panic" } as const]) {
    assert.ok(wantsRestart("always", end));
    assert.ok(!wantsRestart("no", end));
  }
});
