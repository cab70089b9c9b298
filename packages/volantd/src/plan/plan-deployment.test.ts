import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import {
  isWhole,
  planDeployment,
  type DeploymentPlan,
  type DesiredDeployment,
  type ObservedReplica,
  type ReplicaCondition,
} from "./plan-deployment.ts";
import { rolloutView } from "./rollout.ts";

const LIMIT_MS = 1000;

function desired(changes: Partial<DesiredDeployment> = {}): DesiredDeployment {
  return {
    replicas: 3,
    version: 1,
    rolledOut: 1,
    maxUnavailable: 1,
    readyTimeoutMs: LIMIT_MS,
    minReadyMs: 0,
    paused: false,
    failure: undefined,
    deleting: false,
    ...changes,
  };
}

function replica(
  index: number,
  condition: ReplicaCondition = "ready",
  changes: Partial<ObservedReplica> = {},
): ObservedReplica {
  return {
    vmId: 100 + index,
    index,
    version: 1,
    condition,
    unreadySinceMs: undefined,
    settlesAtMs: undefined,
    startAtMs: undefined,
    ...changes,
  };
}

const text = ({ steps }: DeploymentPlan): string[] =>
  steps.map((step) => {
    if (step.kind === "create") return `create ${step.index} v${step.version}`;
    return "vmId" in step ? `${step.kind} ${step.vmId - 100}` : step.kind;
  });
const plan = (deployment: DesiredDeployment, replicas: readonly ObservedReplica[], nowMs = 0): string[] =>
  text(planDeployment(deployment, replicas, nowMs));

test("what is missing is made, the lowest number first; what is beyond goes, the highest first; what is well is left alone", () => {
  assert.deepEqual(plan(desired(), []), ["create 1 v1", "create 2 v1", "create 3 v1"]);
  assert.deepEqual(plan(desired({ replicas: 4 }), [replica(2), replica(4)]), ["create 1 v1", "create 3 v1"]);
  assert.deepEqual(plan(desired({ replicas: 1 }), [replica(1), replica(2), replica(3)]), ["delete 3", "delete 2"]);
  assert.deepEqual(plan(desired(), [replica(1), replica(2), replica(3)]), []);
});

test("one that is on its way out is waited for: nothing is made in its place before it is gone", () => {
  assert.deepEqual(plan(desired({ replicas: 2 }), [replica(1), replica(2, "deleting")]), []);
  assert.deepEqual(plan(desired({ deleting: true }), [replica(1), replica(2, "deleting"), replica(3)]), [
    "delete 3",
    "delete 1",
  ]);
  assert.deepEqual(plan(desired({ deleting: true }), [replica(2, "deleting")]), []);
  assert.deepEqual(plan(desired({ deleting: true }), []), ["forget"]);
});

test("what ended is started again when its pause is over, whatever a roll-out does", () => {
  const down = replica(2, "ended", { startAtMs: 50 });
  const waiting = planDeployment(desired(), [replica(1), down, replica(3)], 0);
  assert.deepEqual([text(waiting), waiting.wakeAtMs], [[], 50]);
  for (const changes of [{}, { paused: true, version: 2 }, { failure: "ill", version: 2 }]) {
    assert.deepEqual(plan(desired(changes), [replica(1), down, replica(3)], 50), ["start 2"]);
  }
});

test("a roll-out changes one at a time, those that are down before those that are not, and goes on when that one is ready", () => {
  const wanted = desired({ version: 2 });
  assert.deepEqual(plan(wanted, [replica(1), replica(2), replica(3)]), ["update 1"]);
  const changed = (condition: ReplicaCondition) =>
    replica(1, condition, { version: 2, unreadySinceMs: condition === "ready" ? undefined : 0 });
  assert.deepEqual(plan(wanted, [changed("unready"), replica(2), replica(3)]), []);
  assert.deepEqual(plan(wanted, [changed("ready"), replica(2), replica(3)]), ["update 2"]);
  assert.deepEqual(plan(wanted, [replica(1), replica(2), replica(3, "ended")]), ["update 3"]);
  assert.deepEqual(
    plan(wanted, [replica(1), replica(2, "unready"), replica(3, "unready")]),
    ["update 2"],
    "a bad version can be left",
  );
  assert.deepEqual(plan(desired({ version: 2, maxUnavailable: 2 }), [replica(1), replica(2), replica(3)]), [
    "update 1",
    "update 2",
  ]);
});

test("after a restart of volantd nobody is taken down before all others have said that they are well", () => {
  const wanted = desired({ version: 2 });
  assert.deepEqual(plan(wanted, [replica(1, "unknown"), replica(2, "unknown"), replica(3, "unknown")]), []);
  assert.deepEqual(plan(wanted, [replica(1), replica(2, "unknown"), replica(3, "unknown")]), []);
  assert.deepEqual(plan(wanted, [replica(1), replica(2), replica(3, "unknown")]), ["update 3"]);
});

test("a changed replica that has only just become ready is waited for, and one that is so for too short a time again and again ends the roll-out", () => {
  const wanted = desired({ version: 2, minReadyMs: 50 });
  const fresh = replica(1, "ready", { version: 2, unreadySinceMs: 0, settlesAtMs: 80 });
  const waiting = planDeployment(wanted, [fresh, replica(2), replica(3)], 40);
  assert.deepEqual([text(waiting), waiting.wakeAtMs], [[], 80]);
  assert.deepEqual(plan(wanted, [replica(1, "ready", { version: 2 }), replica(2), replica(3)], 80), ["update 2"]);
  assert.deepEqual(plan(wanted, [fresh, replica(2), replica(3)], LIMIT_MS + 50), ["fail 1"]);
  const all = [fresh, replica(2, "ready", { version: 2 }), replica(3, "ready", { version: 2 })];
  assert.deepEqual(plan(wanted, all, 40), [], "nor is it complete before");
});

test("what is missing counts as down: no ready replica is changed while another is still to come", () => {
  assert.deepEqual(plan(desired({ version: 2 }), [replica(1), replica(2)]), ["create 3 v2"]);
  assert.deepEqual(plan(desired({ version: 2, replicas: 2 }), [replica(1), replica(2), replica(3)]), [
    "delete 3",
    "update 1",
  ]);
});

test("a replica that is not ready in time ends the roll-out, and missing ones are made as they were before", () => {
  const late = replica(1, "unready", { version: 2, unreadySinceMs: 10 });
  const waiting = planDeployment(desired({ version: 2 }), [late, replica(2), replica(3)], 20);
  assert.deepEqual([text(waiting), waiting.wakeAtMs], [[], 10 + LIMIT_MS]);
  assert.deepEqual(plan(desired({ version: 2 }), [late, replica(2), replica(3)], 10 + LIMIT_MS), ["fail 1"]);
  const failed = desired({ version: 2, failure: "ill" });
  assert.deepEqual(plan(failed, [late, replica(2)], 10_000), ["create 3 v1"]);
  assert.deepEqual(plan(desired({ version: 2, paused: true }), [late, replica(2)], 10_000), ["create 3 v1"]);
  // Back to what was: only the one that has the other version is changed.
  assert.deepEqual(plan(desired({ version: 1 }), [late, replica(2), replica(3)], 10_000), ["update 1"]);
});

test("without a version that ever worked, a stopped roll-out still makes what is missing", () => {
  assert.deepEqual(plan(desired({ rolledOut: undefined, failure: "ill", replicas: 1 }), []), ["create 1 v1"]);
});

test("a roll-out is complete when all are there, ready, with the version; trouble later does not undo that", () => {
  const all = [1, 2, 3].map((index) => replica(index, "ready", { version: 2 }));
  assert.deepEqual(plan(desired({ version: 2 }), all), ["complete"]);
  assert.deepEqual(plan(desired({ version: 2, failure: "was slow" }), all), ["complete"]);
  assert.deepEqual(plan(desired({ version: 2, rolledOut: 2 }), all), []);
  const ill = [...all.slice(0, 2), replica(3, "unready", { version: 2, unreadySinceMs: 0 })];
  assert.deepEqual(plan(desired({ version: 2, rolledOut: 2 }), ill, 10 * LIMIT_MS), []);
  assert.equal(rolloutView(desired({ version: 2, rolledOut: 2 }), ill, undefined).state, "complete");
  assert.equal(rolloutView(desired({ version: 2 }), ill, undefined).state, "progressing");
});

test("what users see of each state", () => {
  const view = (changes: Partial<DesiredDeployment>, replicas: ObservedReplica[], trouble?: string) => {
    const { state, reason } = rolloutView(desired(changes), replicas, trouble);
    return `${state}: ${reason ?? ""}`;
  };
  const two = [replica(1), replica(2)];
  assert.equal(view({}, two), "complete: 2 of 3 replicas are ready");
  assert.equal(view({}, two, "no address is free"), "complete: no address is free");
  assert.equal(view({ replicas: 2 }, two), "complete: ");
  assert.equal(
    view({ replicas: 2, rolledOut: undefined }, two),
    "progressing: 2 of 2 replicas have version 1, and 2 are ready",
  );
  assert.equal(view({ version: 2 }, two), "progressing: 0 of 3 replicas have version 2, and 2 are ready");
  assert.equal(view({ version: 2, paused: true }, two), "paused: 0 of 3 replicas have version 2, and 2 are ready");
  assert.equal(view({ version: 2, failure: "web-1 is ill" }, two), "failed: web-1 is ill");
  assert.equal(view({ deleting: true }, two), "deleting: 2 VMs are left");
});

/** A host on which steps happen at once and guests become ready when the test says so. */
class Model {
  deployment: DesiredDeployment;
  readonly replicas = new Map<number, { version: number; condition: ReplicaCondition; sinceMs: number }>();
  /** Versions whose guests never become ready. */
  readonly bad: ReadonlySet<number>;
  nowMs = 0;

  constructor(deployment: DesiredDeployment, bad: ReadonlySet<number>) {
    this.deployment = deployment;
    this.bad = bad;
  }

  observe(): ObservedReplica[] {
    return [...this.replicas].map(([index, { version, condition, sinceMs }]) => {
      return replica(index, condition, { version, unreadySinceMs: condition === "ready" ? undefined : sinceMs });
    });
  }

  /** One look, and what follows from it. Says what happened. */
  pass(): string[] {
    const observed = this.observe();
    const { steps } = planDeployment(this.deployment, observed, this.nowMs);
    this.#checkSteps(steps, observed);
    for (const step of steps) {
      if (step.kind === "create") this.#put(step.index, step.version);
      else if (step.kind === "update") this.#put(step.vmId - 100, step.version);
      else if (step.kind === "start") this.#put(step.vmId - 100, this.replicas.get(step.vmId - 100)?.version ?? 0);
      else if (step.kind === "delete") {
        const found = this.replicas.get(step.vmId - 100);
        if (found !== undefined) found.condition = "deleting";
      } else if (step.kind === "fail") this.deployment = { ...this.deployment, failure: "late" };
      else if (step.kind === "complete") {
        this.deployment = { ...this.deployment, failure: undefined, rolledOut: this.deployment.version };
      }
    }
    return steps.map(({ kind }) => kind);
  }

  #put(index: number, version: number): void {
    this.replicas.set(index, { version, condition: "unready", sinceMs: this.nowMs });
  }

  #checkSteps(steps: DeploymentPlan["steps"], observed: readonly ObservedReplica[]): void {
    const { replicas, maxUnavailable, version, paused, failure, deleting } = this.deployment;
    const inRange = observed.filter(({ index, condition }) => index <= replicas && condition !== "deleting");
    const ready = inRange.filter(({ condition }) => condition === "ready");
    const find = (vmId: number) => observed.find((one) => one.vmId === vmId);
    const updates = steps.flatMap((step) => (step.kind === "update" ? [find(step.vmId)] : []));
    const takenDown = updates.filter((one) => one?.condition === "ready").length;
    assert.ok(takenDown === 0 || replicas - (ready.length - takenDown) <= maxUnavailable, "too many are down at once");
    const changing = inRange.filter((one) => one.version === version && one.condition !== "ready").length;
    assert.ok(updates.length === 0 || changing + updates.length <= maxUnavailable, "too many are changed at once");
    assert.ok(updates.length === 0 || (!paused && failure === undefined), "nothing is changed while it is stopped");
    assert.ok(updates.every((one) => one !== undefined && one.version !== version && one.index <= replicas));
    const deletes = steps.flatMap((step) => (step.kind === "delete" ? [find(step.vmId)?.index ?? 0] : []));
    assert.ok(
      deletes.every((index) => deleting || index > replicas),
      "only what is beyond the number goes",
    );
    assert.deepEqual(
      deletes,
      deletes.toSorted((a, b) => b - a),
    );
    const creates = steps.flatMap((step) => (step.kind === "create" ? [step.index] : []));
    assert.deepEqual(
      creates,
      creates.toSorted((a, b) => a - b),
    );
    assert.ok(
      creates.every((index) => index >= 1 && index <= replicas && !observed.some((one) => one.index === index)),
    );
    const touched = steps.flatMap((step) => ("vmId" in step ? [step.vmId] : []));
    assert.ok(
      touched.every((vmId) => find(vmId)?.condition !== "deleting"),
      "who is on his way out is left alone",
    );
    assert.equal(new Set(touched).size, touched.length, "one step for each");
  }

  /** What guests and the loop of VMs do by themselves. */
  settle(): void {
    for (const [index, found] of this.replicas) {
      if (found.condition === "deleting") this.replicas.delete(index);
      else if (found.condition !== "ended" && !this.bad.has(found.version)) found.condition = "ready";
      // Nobody stays unknown: replica-memory.ts takes whoever says nothing for too long for one that is not ready.
      else if (found.condition === "unknown") Object.assign(found, { condition: "unready", sinceMs: this.nowMs });
    }
  }

  /** To where nothing more happens; time passes only while nothing else does. */
  run(): void {
    for (let round = 0; round < 500; round += 1) {
      const did = this.pass();
      if (did.length > 0) continue;
      const before = JSON.stringify(this.observe());
      this.settle();
      if (JSON.stringify(this.observe()) !== before) continue;
      const { wakeAtMs } = planDeployment(this.deployment, this.observe(), this.nowMs);
      if (wakeAtMs === undefined) return;
      this.nowMs = Math.max(this.nowMs, wakeAtMs);
    }
    assert.fail(`it never comes to rest: ${JSON.stringify([this.deployment, this.observe()])}`);
  }
}

const change = fc.oneof(
  fc.record({ replicas: fc.integer({ min: 0, max: 6 }) }),
  fc.record({ version: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ paused: fc.boolean() }),
  fc.record({ maxUnavailable: fc.integer({ min: 1, max: 4 }) }),
);
const accident = fc.record({
  index: fc.integer({ min: 1, max: 6 }),
  condition: fc.constantFrom<ReplicaCondition>("ended", "unready", "unknown", "deleting"),
});

test("whatever users and accidents do, no plan takes too many down, touches what it must not, or never comes to rest; good versions arrive", () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(change, accident, fc.constant("pass" as const), fc.constant("settle" as const)), {
        maxLength: 40,
      }),
      fc.integer({ min: 2, max: 4 }),
      (events, badVersion) => {
        const model = new Model(desired({ rolledOut: undefined }), new Set([badVersion]));
        for (const event of events) {
          if (event === "pass") model.pass();
          else if (event === "settle") model.settle();
          else if ("index" in event) {
            const found = model.replicas.get(event.index);
            if (found !== undefined && found.condition !== "deleting")
              Object.assign(found, { condition: event.condition, sinceMs: model.nowMs });
          } else {
            const goesOn = "version" in event || ("paused" in event && !event.paused);
            model.deployment = { ...model.deployment, ...event, ...(goesOn ? { failure: undefined } : {}) };
          }
        }
        model.run();
        const indices = [...model.replicas.keys()].toSorted((a, b) => a - b);
        const { replicas } = model.deployment;
        assert.deepEqual(
          indices,
          Array.from({ length: replicas }, (_none, position) => position + 1),
        );
        // Back to what works, wherever it is.
        model.deployment = { ...model.deployment, version: 1, paused: false, failure: undefined };
        model.run();
        assert.ok(isWhole(model.deployment, model.observe()), JSON.stringify(model.observe()));
        assert.equal(model.deployment.rolledOut, 1);
      },
    ),
    { numRuns: 2000 },
  );
});

test("a version that does not work reaches only as many replicas as may be down, and the others stay as they are", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 8 }), (replicas, maxUnavailable) => {
      const model = new Model(desired({ replicas, maxUnavailable, rolledOut: undefined }), new Set([2]));
      model.run();
      model.deployment = { ...model.deployment, version: 2 };
      model.run();
      const changed = [...model.replicas.values()].filter(({ version }) => version === 2).length;
      assert.equal(changed, Math.min(replicas, maxUnavailable));
      assert.equal(model.deployment.failure, "late");
      assert.ok([...model.replicas.values()].every(({ version, condition }) => version === 2 || condition === "ready"));
    }),
  );
});
