import assert from "node:assert/strict";
import test from "node:test";
import { watchLiveness } from "./liveness.ts";

const TIMES = { everyMs: 750, silentAfterMs: 1100, endAfterMs: 10_000 };

/** The other end of a link, and a clock that only the test moves. */
function watched() {
  let due: { readonly atMs: number; readonly run: () => void } | undefined;
  const at = { nowMs: 0, bytes: 0, said: [] as string[], answer: () => {}, pings: 0 };
  const say = (what: string) => at.said.push(`${what} ${at.nowMs}`);
  const stop = watchLiveness({
    ...TIMES,
    ping: (answered) => {
      at.pings += 1;
      at.answer = answered;
      return true;
    },
    received: () => at.bytes,
    onSilent: (sinceMs) => say(`silent since ${sinceMs} at`),
    onAnswer: () => say("answers at"),
    onEnd: () => {
      say("ends at");
      stop();
    },
    now: () => at.nowMs,
    later: (delayMs, run) => {
      due = { atMs: at.nowMs + delayMs, run };
      return () => (due = undefined);
    },
  });
  const fire = () => {
    if (due === undefined || due.atMs > at.nowMs) return;
    const { run } = due;
    due = undefined;
    run();
  };
  /** Lets time pass; `each` is called after each millisecond. */
  const pass = (ms: number, each = () => {}) => {
    for (let passed = 0; passed < ms; passed += 1) {
      at.nowMs += 1;
      fire();
      each();
    }
  };
  /** This process gets no processor for so long; then its timers fire, and what has arrived is read. */
  const stall = (ms: number, then: () => void) => {
    at.nowMs += ms;
    fire();
    then();
  };
  return { at, pass, stall, stop };
}

test("an end that answers is asked again and again, and nothing is said of it", () => {
  const { at, pass } = watched();
  pass(10_000, () => at.answer());
  assert.ok(at.pings >= 12 && at.pings <= 14, `${at.pings} pings`);
  assert.deepEqual(at.said, []);
});

test("wherever between two pings an end falls silent, that is told within 1.9 s, its answer is told, and its end after ten", () => {
  const { at, pass } = watched();
  pass(751);
  at.answer();
  const silentFromMs = at.nowMs;
  pass(1900);
  assert.equal(at.said.length, 1);
  assert.match(at.said[0] ?? "", /^silent since/);
  assert.ok(Number(at.said[0]?.split(" ").at(-1)) - silentFromMs <= 1900, at.said[0]);
  at.answer();
  assert.match(at.said[1] ?? "", /^answers at/);
  pass(13_000);
  assert.match(at.said[2] ?? "", /^silent since/);
  assert.match(at.said[3] ?? "", /^ends at/);
  assert.equal(at.said.length, 4);
});

test("what still sends is not silent, however long its answer waits behind that", () => {
  const { at, pass } = watched();
  pass(20_000, () => (at.bytes += 1));
  assert.deepEqual(at.said, []);
});

test("time that this process did not have is not the other end's silence", () => {
  const { at, pass, stall } = watched();
  pass(751);
  stall(60_000, () => at.answer());
  pass(100);
  assert.deepEqual(at.said, []);
});

test("nothing is asked or said once it was told to stop", () => {
  const { at, pass, stop } = watched();
  pass(760);
  stop();
  const { pings } = at;
  pass(20_000);
  at.answer();
  assert.deepEqual([at.pings, at.said], [pings, []]);
});
