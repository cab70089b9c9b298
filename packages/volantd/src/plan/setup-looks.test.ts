import assert from "node:assert/strict";
import test from "node:test";
import {
  becameQuarrel,
  BUSY_EVERY_MS,
  doubted,
  GATHER_MS,
  LEAST_PAUSE_MS,
  type Look,
  looked,
  LONGEST_DELAY_MS,
  LONGEST_PAUSE_MS,
  type LookHistory,
  nextLookAtMs,
  NO_LOOKS,
  PATIENT_WITH,
  QUARREL_WITHIN_MS,
  quarrelDelayMs,
  UNTOLD_EVERY_MS,
} from "./setup-looks.ts";

const look = (endedAtMs: number, change: Partial<Look> = {}): Look => ({
  beganAtMs: endedAtMs - 10,
  endedAtMs,
  found: "whole",
  untold: false,
  ...change,
});

/** What comes of an hour in which something happens every so often; damage is found by each look that `isDamage` says so of. */
function hour(everyMs: number, isDamage: (look: number) => boolean): { looks: number[]; warnings: number } {
  const looks: number[] = [];
  let history = NO_LOOKS;
  let warnings = 0;
  let eventMs = 0;
  for (;;) {
    const atMs = nextLookAtMs(history) ?? Infinity;
    if (Math.min(eventMs, atMs) > 3_600_000) return { looks, warnings };
    if (eventMs <= atMs) {
      history = doubted(history, eventMs);
      eventMs += everyMs;
      continue;
    }
    const before: LookHistory = { ...history, doubtedAtMs: undefined };
    history = looked(before, look(atMs + 10, { beganAtMs: atMs, found: isDamage(looks.length) ? "damaged" : "whole" }));
    if (becameQuarrel(before, history)) warnings += 1;
    looks.push(atMs);
  }
}

test("nothing that happens, no look", () => {
  assert.equal(nextLookAtMs(NO_LOOKS), undefined);
  assert.equal(nextLookAtMs(looked(NO_LOOKS, look(1000))), undefined);
});

test("what comes together is looked at once, soon after its beginning, and not put off by what goes on coming", () => {
  const once = doubted(NO_LOOKS, 1000);
  assert.equal(nextLookAtMs(once), 1000 + GATHER_MS);
  assert.equal(nextLookAtMs(doubted(doubted(once, 1040), 1049)), 1000 + GATHER_MS);
});

test("looks keep a distance from each other, a longer one where they take long, but no endless one", () => {
  const after = (tookMs: number) =>
    (nextLookAtMs(doubted(looked(NO_LOOKS, look(5000, { beganAtMs: 5000 - tookMs })), 5001)) ?? 0) - 5000;
  assert.equal(after(5), LEAST_PAUSE_MS);
  assert.equal(after(200), 800);
  assert.equal(after(60_000), LONGEST_PAUSE_MS);
  assert.ok(hour(1, () => false).looks.length <= 3_600_000 / LEAST_PAUSE_MS);
});

test("where the kernel tells nothing, looks follow the clock, often enough for two seconds", () => {
  const history = looked(NO_LOOKS, look(5000, { untold: true }));
  assert.equal(nextLookAtMs(history), 5000 + UNTOLD_EVERY_MS);
  assert.ok(UNTOLD_EVERY_MS < 2000);
});

test("a set-up that is at work is waited for", () => {
  assert.equal(nextLookAtMs(looked(NO_LOOKS, look(5000, { found: "busy" }))), 5000 + BUSY_EVERY_MS);
});

test("damage is looked for without delay for as many times as a reload brings, and then ever more slowly", () => {
  let history = NO_LOOKS;
  const delays: number[] = [];
  for (let time = 1; time <= PATIENT_WITH + 10; time += 1) {
    const atMs = (nextLookAtMs(doubted(history, history.quarrel.lastAtMs)) ?? 0) + 10;
    history = looked(history, look(Number.isFinite(atMs) ? atMs : 0, { found: "damaged" }));
    delays.push(quarrelDelayMs(history.quarrel.count));
  }
  assert.deepEqual(delays.slice(0, PATIENT_WITH), Array<number>(PATIENT_WITH).fill(0));
  assert.deepEqual(delays.slice(PATIENT_WITH, PATIENT_WITH + 6), [1000, 2000, 4000, 8000, 16_000, LONGEST_DELAY_MS]);
  assert.equal(delays.at(-1), LONGEST_DELAY_MS);
});

test("an hour's quarrel with somebody who removes what is put back costs few looks, and one warning", () => {
  const { looks, warnings } = hour(200, () => true);
  assert.equal(warnings, 1);
  assert.ok(looks.length < PATIENT_WITH + 8 + 120, `${looks.length} looks`);
});

test("damage once in a while is no quarrel, however often it comes", () => {
  const { warnings } = hour(QUARREL_WITHIN_MS + 1000, () => true);
  assert.equal(warnings, 0);
});

test("a quarrel is over once nothing has been missing for a while", () => {
  let history = NO_LOOKS;
  for (let time = 1; time <= PATIENT_WITH + 1; time += 1)
    history = looked(history, look(time * 100, { found: "damaged" }));
  const endMs = history.quarrel.lastAtMs + QUARREL_WITHIN_MS + quarrelDelayMs(history.quarrel.count);
  assert.equal(looked(history, look(endMs - 1, { found: "damaged" })).quarrel.count, PATIENT_WITH + 2);
  assert.equal(looked(history, look(endMs, { found: "damaged" })).quarrel.count, 1);
});
