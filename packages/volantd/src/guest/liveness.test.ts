import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { Liveness } from "./liveness.ts";
import { Pulse } from "./pulse.ts";

const TIMES = { silentAfterMs: 1700, endAfterMs: 10_000 };
const BEAT_MS = 600;

/** The other end of a link, and a clock that only the test moves. */
function watched() {
  let due: { readonly atMs: number; readonly run: () => void } | undefined;
  const at = { nowMs: 0, said: [] as string[] };
  const say = (what: string) => at.said.push(`${what} at ${at.nowMs}`);
  const liveness = new Liveness(TIMES, 0);
  const pulse = new Pulse({
    now: () => at.nowMs,
    later: (delayMs, run) => (due = { atMs: at.nowMs + delayMs, run }),
  });
  const stop = pulse.every((nowMs) => {
    const news = liveness.look(nowMs);
    if (news === "silent") say(`silent since ${liveness.heardMs}`);
    if (news === "ended") {
      say("ended");
      stop();
    }
  });
  const hear = () => {
    if (liveness.hear(at.nowMs)) say("answers");
  };
  const fire = () => {
    if (due === undefined || due.atMs > at.nowMs) return;
    const { run } = due;
    due = undefined;
    run();
  };
  /** Lets time pass; `each` is called with each millisecond, before the timers. */
  const pass = (ms: number, each = () => {}) => {
    for (let passed = 0; passed < ms; passed += 1) {
      at.nowMs += 1;
      each();
      fire();
    }
  };
  return { at, pass, fire, hear, stop };
}

test("of an end that beats nothing is said, nor of one whose beats come up to a second late", () => {
  const { at, pass, hear } = watched();
  pass(10_000, () => {
    if (at.nowMs % BEAT_MS === 0) hear();
  });
  pass(10_000, () => {
    if (at.nowMs % (BEAT_MS + 1000) === 0) hear();
  });
  assert.deepEqual(at.said, []);
});

test("whenever an end falls silent, that is told within 1.9 s and once, its answer is told, and its end after ten", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3000 }), (silentFromMs) => {
      const { at, pass, hear } = watched();
      pass(silentFromMs - 1);
      hear();
      const heardMs = at.nowMs;
      at.said.length = 0;
      pass(9000);
      assert.equal(at.said.length, 1);
      assert.match(at.said[0] ?? "", new RegExp(`^silent since ${heardMs} at`));
      const toldMs = Number(at.said[0]?.split(" ").at(-1));
      assert.ok(toldMs - heardMs >= TIMES.silentAfterMs && toldMs - heardMs <= 1900, at.said[0]);
      hear();
      assert.equal(at.said[1], `answers at ${at.nowMs}`);
      pass(13_000);
      assert.match(at.said[2] ?? "", /^silent since/);
      assert.match(at.said[3] ?? "", /^ended at/);
      assert.equal(at.said.length, 4);
    }),
    { numRuns: 30 },
  );
});

test("time that this process did not have is not the other end's silence, and a process that is always late still tells of one", () => {
  const { at, pass, fire, hear } = watched();
  pass(700);
  at.nowMs += 60_000;
  fire();
  // What had arrived meanwhile is read after that turn.
  hear();
  pass(1000);
  assert.deepEqual(at.said, []);
  for (let turn = 0; turn < 10; turn += 1) {
    at.nowMs += 1000;
    fire();
  }
  assert.match(at.said[0] ?? "", /^silent since/);
});

test("nothing is said once the watch was stopped, and the timer ends with the last one", () => {
  const { at, pass, stop } = watched();
  pass(760);
  stop();
  pass(20_000);
  assert.deepEqual(at.said, []);
  const waiting: (() => void)[] = [];
  const pulse = new Pulse({ now: () => 0, later: (_delayMs, run) => waiting.push(run) });
  pulse.every(() => {})();
  waiting.pop()?.();
  assert.deepEqual(waiting, []);
  pulse.every(() => {});
  assert.equal(waiting.length, 1);
});
