import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import type { ReplicaCondition } from "./plan-deployment.ts";
import { judged, pauseMs, remember, UNKNOWN_FOR_MS, WELL_AFTER_MS, type ReplicaMemory } from "./replica-memory.ts";

function sight(condition: ReplicaCondition, generation = 1, version = 1) {
  return { condition, generation, version };
}

test("the pause after an end begins at nothing, never gets shorter, and has a ceiling", () => {
  const pauses = Array.from({ length: 50 }, (_none, ends) => pauseMs(ends));
  assert.deepEqual(pauses.slice(0, 5), [0, 0, 1000, 2000, 4000]);
  assert.deepEqual(
    pauses,
    pauses.toSorted((a, b) => a - b),
  );
  assert.equal(pauses.at(-1), 60_000);
});

test("each end counts once, however often it is looked at; who was well for long begins anew, and so does another version", () => {
  let memory: ReplicaMemory | undefined;
  for (let generation = 1; generation <= 3; generation += 1) {
    memory = remember(memory, sight("unready", generation), 0);
    memory = remember(memory, sight("ended", generation), 10);
    memory = remember(memory, sight("ended", generation), 20);
    assert.equal(memory.ends, generation);
    assert.equal(memory.startAtMs, 10 + pauseMs(generation));
  }
  assert.equal(remember(memory, sight("ended", 3, 2), 30).startAtMs, 30, "another version");
  memory = remember(memory, sight("ready", 4), 100);
  const soon = remember(memory, sight("ended", 4), 100 + WELL_AFTER_MS - 1);
  const late = remember(memory, sight("ended", 4), 100 + WELL_AFTER_MS);
  assert.deepEqual([soon.ends, late.ends], [4, 1]);
});

test("since when one is not ready survives ends and starts, and ends with readiness", () => {
  let memory = remember(undefined, sight("unready"), 5);
  memory = remember(memory, sight("ended"), 7);
  memory = remember(memory, sight("unready", 2), 9);
  assert.equal(memory.unreadySinceMs, 5);
  memory = remember(memory, sight("ready", 2), 11);
  assert.equal(memory.unreadySinceMs, undefined);
  assert.equal(remember(memory, sight("unready", 2), 13).unreadySinceMs, 13);
});

test("ready counts when it has lasted: a replica that is so for moments only is still on its way", () => {
  let memory = remember(undefined, sight("unready"), 5, 100);
  memory = remember(memory, sight("ready"), 10, 100);
  memory = remember(memory, sight("ended"), 50, 100);
  memory = remember(memory, sight("ready", 2), 60, 100);
  assert.deepEqual([memory.unreadySinceMs, memory.readySinceMs], [5, 60]);
  assert.equal(remember(memory, sight("ready", 2), 160, 100).unreadySinceMs, undefined);
});

test("an agent's silence counts as trouble only after a while", () => {
  const memory = remember(remember(undefined, sight("unknown"), 0), sight("unknown"), 10);
  assert.equal(judged("unknown", memory, UNKNOWN_FOR_MS - 1), "unknown");
  assert.equal(judged("unknown", memory, UNKNOWN_FOR_MS), "unready");
  assert.equal(judged("ready", remember(memory, sight("ready"), 20), UNKNOWN_FOR_MS), "ready");
});

test("looking twice at the same time changes nothing", () => {
  const conditions = fc.constantFrom<ReplicaCondition>("ready", "unready", "unknown", "ended");
  fc.assert(
    fc.property(fc.array(fc.tuple(conditions, fc.nat(3), fc.nat(100_000))), (looks) => {
      let memory: ReplicaMemory | undefined;
      let nowMs = 0;
      for (const [condition, generation, passedMs] of looks) {
        nowMs += passedMs;
        memory = remember(memory, sight(condition, generation), nowMs);
        assert.deepEqual(remember(memory, sight(condition, generation), nowMs), memory);
      }
    }),
  );
});
