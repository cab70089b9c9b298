import assert from "node:assert/strict";
import test from "node:test";
import type { StepKind } from "../plan/step.ts";
import { StartClock } from "./start-clock.ts";

/** Each step takes a millisecond, and begins when its time has come. */
function run(clock: StartClock, vmId: number, steps: readonly (readonly [StepKind, number])[]): unknown[] {
  return steps.map(([kind, startedMs]) => clock.see({ vmId, kind, startedMs, endedMs: startedMs + 1 }));
}

test("a start's parts follow each other without a gap, from its first step until it is recorded as running", () => {
  const clock = new StartClock();
  const times = run(clock, 7, [
    ["put_policy", 0],
    ["create_tap", 2],
    ["launch", 5],
    ["record_started", 30],
    ["attach_guest", 100],
    ["configure_guest", 120],
    ["record_running", 150],
  ]).at(-1);
  assert.deepEqual(times, {
    vmId: 7,
    startedMs: 0,
    endedMs: 151,
    phases: [
      { phase: "network", startedMs: 0, endedMs: 5 },
      { phase: "launch", startedMs: 5, endedMs: 6 },
      { phase: "boot", startedMs: 6, endedMs: 101 },
      { phase: "configure", startedMs: 101, endedMs: 121 },
      { phase: "workload", startedMs: 121, endedMs: 151 },
    ],
  });
  assert.equal(clock.size, 0);
});

test("a start that breaks off leaves nothing, and the next one begins anew", () => {
  const clock = new StartClock();
  run(clock, 1, [
    ["create_tap", 0],
    ["launch", 1],
    ["record_end", 50],
  ]);
  assert.equal(clock.size, 0);
  const [, times] = run(clock, 1, [
    ["launch", 100],
    ["record_running", 110],
  ]);
  assert.equal((times as { startedMs: number }).startedMs, 100);
});

test("what was adopted while it started, or is repaired while it runs, counts as no start; two VMs are told apart", () => {
  const clock = new StartClock();
  assert.deepEqual(
    run(clock, 1, [
      ["attach_guest", 0],
      ["record_running", 5],
    ]),
    [undefined, undefined],
  );
  assert.deepEqual(
    run(clock, 2, [
      ["set_neighbour", 0],
      ["record_running", 5],
    ]),
    [undefined, undefined],
  );
  run(clock, 3, [["launch", 0]]);
  run(clock, 4, [["launch", 10]]);
  const [times] = run(clock, 3, [["record_running", 20]]);
  assert.equal((times as { endedMs: number }).endedMs, 21);
  assert.equal(clock.size, 1);
});

test("a step that failed is no part of a start", () => {
  const clock = new StartClock();
  clock.see({ vmId: 1, kind: "launch", startedMs: 0, endedMs: 1, failure: "no room" });
  assert.equal(clock.size, 0);
});
