import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { type DatabaseFacts, isDestructive, planRestore, type RunningVm, type VmRow } from "./plan-restore.ts";
import { markOf } from "./running-vms.ts";

const INSTALLATION = "abcdef01";

function row(id: number, given: Partial<VmRow> = {}): VmRow {
  const generation = given.generation ?? 1;
  return {
    id,
    name: `vm-${id}`,
    desired: "running",
    generation,
    startedGeneration: generation,
    endedGeneration: 0,
    inForce: "as it was",
    ...given,
  };
}

function facts(vms: readonly VmRow[], given: Partial<DatabaseFacts> = {}): DatabaseFacts {
  const last = Math.max(0, ...vms.map(({ id }) => id));
  const events = { last: 0, reserved: 0 };
  return { installation: INSTALLATION, schemaVersion: 3, vms, plugins: 0, lastIds: { vms: last }, events, ...given };
}

const running = (vmId: number, generation: number, installation = INSTALLATION): RunningVm => ({
  installation,
  vmId,
  generation,
});

test("what runs as the backup has it goes on, and nothing is changed for it", () => {
  const plan = planRestore(facts([row(1)]), facts([row(1)]), [running(1, 1)]);
  assert.deepEqual([plan.goOn, plan.raised, isDestructive(plan)], [["vm-1"], [], false]);
});

test("what was started again alike goes on, under its later generation", () => {
  const plan = planRestore(facts([row(1)]), facts([row(1, { generation: 4 })]), [running(1, 4)]);
  assert.deepEqual(plan.goOn, ["vm-1"]);
  assert.deepEqual(plan.raised, [{ id: 1, generation: 4, startedGeneration: 4, endedGeneration: 0 }]);
});

test("what was started again with other settings, or nobody knows with which, is started once more", () => {
  for (const now of [facts([row(1, { generation: 4, inForce: "other" })]), undefined]) {
    const plan = planRestore(facts([row(1)]), now, [running(1, 4)]);
    assert.deepEqual(plan.restart, ["vm-1"]);
    assert.deepEqual(plan.raised, [{ id: 1, generation: 5, startedGeneration: 1, endedGeneration: 0 }]);
    assert.equal(isDestructive(plan), true);
  }
});

test("what the backup has stopped is stopped, and what it has running and does not run has ended", () => {
  const backup = facts([row(1, { desired: "stopped", endedGeneration: 1 }), row(2)]);
  const plan = planRestore(backup, facts([row(1, { generation: 2 }), row(2, { generation: 3 })]), [running(1, 2)]);
  assert.deepEqual([plan.stop, plan.ended], [["vm-1"], ["vm-2"]]);
  assert.deepEqual(plan.raised, [
    { id: 1, generation: 2, startedGeneration: 2, endedGeneration: 1 },
    { id: 2, generation: 3, startedGeneration: 3, endedGeneration: 0 },
  ]);
});

test("what was never started is left to be started", () => {
  const plan = planRestore(facts([row(1, { startedGeneration: 0 })]), undefined, []);
  assert.deepEqual([plan.ended, plan.raised, isDestructive(plan)], [[], [], false]);
});

test("what the backup does not know is named: what runs is removed, what does not is forgotten", () => {
  const plan = planRestore(facts([row(1)]), facts([row(1), row(2), row(3)]), [
    running(1, 1),
    running(3, 1),
    running(9, 1),
  ]);
  assert.deepEqual([plan.remove, plan.forget], [["vm-3", "the one with id 9"], ["vm-2"]]);
  assert.equal(plan.lastIds["vms"], 9);
  assert.equal(isDestructive(plan), true);
});

test("no event gets an id that either database can have given out, and those that are lost begin after the last of the backup", () => {
  const backup = facts([], { events: { last: 105, reserved: 1000 } });
  for (const [reserved, next] of [
    [500, 1001],
    [1000, 1001],
    [3000, 3001],
  ] as const) {
    for (const installation of [INSTALLATION, "0000ffff"]) {
      const now = facts([], { installation, events: { last: 400, reserved } });
      assert.deepEqual(planRestore(backup, now, []).events, { lostAfter: 105, reserved: next });
    }
  }
  const unknown = planRestore(backup, undefined, []).events;
  assert.ok(unknown.reserved > 1e12 && Number.isSafeInteger(unknown.reserved + 1e15));
});

test("a backup of another installation leaves what runs here alone, and says so; on a host without VMs it is no loss", () => {
  const other = facts([row(1), row(2)], { installation: "00000001" });
  const here = planRestore(other, facts([row(1), row(5)]), [running(1, 1)]);
  assert.deepEqual([here.abandon, here.goOn, here.ended], [["vm-1"], [], ["vm-1", "vm-2"]]);
  assert.equal(here.lastIds["vms"], 2, "ids of another installation mean nothing to it");
  assert.equal(isDestructive(here), true);
  assert.equal(isDestructive(planRestore(other, facts([]), [])), false);
});

test("whatever there is: no generation and no id is ever given out twice, and nothing runs that its row does not mean", () => {
  const id = fc.integer({ min: 1, max: 6 });
  const generation = fc.integer({ min: 1, max: 5 });
  const anyRow = fc
    .record({
      id,
      generation,
      started: fc.nat(5),
      ended: fc.nat(5),
      desired: fc.constantFrom("running", "stopped", "absent"),
      inForce: fc.constantFrom("a", "b"),
    })
    .map(({ id: vmId, generation: last, started, ended, desired, inForce }) =>
      row(vmId, {
        generation: last,
        startedGeneration: Math.min(started, last),
        endedGeneration: Math.min(ended, started, last),
        desired,
        inForce,
      }),
    );
  const rows = fc.uniqueArray(anyRow, { selector: (vm) => vm.id, maxLength: 6 });
  const processes = fc.uniqueArray(fc.record({ vmId: id, generation }), { selector: ({ vmId }) => vmId, maxLength: 6 });
  fc.assert(
    fc.property(rows, fc.option(rows, { nil: undefined }), processes, (backup, now, seen) => {
      const live = seen.map((one) => running(one.vmId, one.generation));
      const plan = planRestore(facts(backup), now === undefined ? undefined : facts(now), live);
      for (const vm of backup) {
        const after = { ...vm, ...plan.raised.find((raised) => raised.id === vm.id) };
        const process = seen.find(({ vmId }) => vmId === vm.id)?.generation;
        const before = now?.find((other) => other.id === vm.id)?.generation ?? 0;
        assert.ok(after.startedGeneration <= after.generation && after.endedGeneration <= after.generation);
        assert.ok(after.generation >= Math.max(vm.generation, before, process ?? 0));
        const launches =
          after.desired === "running" &&
          after.startedGeneration < after.generation &&
          after.endedGeneration < after.generation;
        if (plan.goOn.includes(vm.name)) assert.equal(after.generation, process);
        // What volantd launches has a number that nothing ever had, or is the very start that the backup was waiting for.
        if (launches && process !== after.generation) {
          const isNew = after.generation > Math.max(vm.generation, before, process ?? 0);
          assert.ok(isNew || (process === undefined && after.generation === vm.generation), JSON.stringify(after));
        }
      }
      const ids = [...backup, ...(now ?? [])].map((vm) => vm.id).concat(seen.map(({ vmId }) => vmId));
      assert.ok(ids.every((used) => used <= (plan.lastIds["vms"] ?? 0)));
    }),
    { numRuns: 2000 },
  );
});

test("a hypervisor is known by its mark alone", () => {
  assert.deepEqual(markOf("qemu\0-name\0guest=volant:abcdef01:7:3\0"), running(7, 3));
  assert.deepEqual(markOf("setpriv\0volant:abcdef01:7:3\0"), running(7, 3));
  assert.equal(markOf("grep\0a volant:abcdef01:7:3\0"), undefined);
  assert.equal(markOf(""), undefined);
});
