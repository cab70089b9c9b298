import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { executeOnModel, observeModel, type ModelState } from "../testing/model-host.ts";
import type { DesiredVm, ObservedTap, ObservedVm } from "./observed.ts";
import { planVm } from "./plan-vm.ts";
import { vmStatus } from "./status.ts";

const UID = 1_900_000_001;

function desired(changes: Partial<DesiredVm> = {}): DesiredVm {
  return {
    id: 1,
    name: "web",
    desired: "running",
    generation: 1,
    startedGeneration: 0,
    runningGeneration: 0,
    endedGeneration: 0,
    tap: "vttap-web",
    mac: "02:ab:cd:00:00:01",
    address: 2,
    uid: UID,
    needsLease: false,
    healthCheck: true,
    ...changes,
  };
}

function observed(changes: Partial<ObservedVm> = {}): ObservedVm {
  return {
    nowMs: 1000,
    network: { managed: true, bridge: "up", bridgeName: "vbr0", addressed: true },
    processes: [],
    taps: [],
    foreignTap: false,
    neighbours: [],
    folder: false,
    guest: undefined,
    shutdowns: [],
    ...changes,
  };
}

const goodTap: ObservedTap = { index: 7, name: "vttap-web", up: true, attached: true, usable: true, owner: UID };
const neighbour = { address: 2, mac: "02:ab:cd:00:00:01" };
const process1 = { vmId: 1, generation: 1, pid: 100, startTicks: 5n };
const attached = {
  generation: 1,
  attached: true,
  configured: true,
  workload: "running",
  health: "healthy",
  trouble: undefined,
} as const;
const up = { processes: [process1], taps: [goodTap], neighbours: [neighbour], folder: true, guest: attached };
const kinds = (vm: DesiredVm | undefined, seen: ObservedVm): string[] => planVm(vm, seen).steps.map(({ kind }) => kind);

test("a new VM on a bare host gets its tap, its neighbour entry, its hypervisor and its link, in this order", () => {
  assert.deepEqual(kinds(desired(), observed()), [
    "create_tap",
    "set_neighbour",
    "launch",
    "record_started",
    "attach_guest",
  ]);
});

test("a VM that is as it should be needs nothing", () => {
  assert.deepEqual(planVm(desired({ startedGeneration: 1, runningGeneration: 1 }), observed(up)), { steps: [] });
});

test("a missing bridge and a foreign link of the tap's name block the start in words, and touch nothing", () => {
  const network = { managed: true, bridge: "missing", bridgeName: "vbr0", addressed: false } as const;
  const missing = planVm(desired(), observed({ network }));
  assert.deepEqual(missing.steps, []);
  assert.match(missing.blocked ?? "", /vbr0 does not exist: run volar setup/);
  const foreign = planVm(desired(), observed({ foreignTap: true }));
  assert.deepEqual(foreign.steps, []);
  assert.match(foreign.blocked ?? "", /vttap-web/);
});

test("a tap on a bridge that the VM names joins that one, which is never changed itself", () => {
  const vm = desired({ bridge: "br-lan", address: undefined });
  const lan = { managed: true, bridge: "up", bridgeName: "br-lan", foreign: true, addressed: true } as const;
  const [step] = planVm(vm, observed({ network: lan })).steps;
  assert.deepEqual(step, { kind: "create_tap", name: "vttap-web", uid: UID, bridge: "br-lan" });
  for (const [bridge, sentence] of [
    ["down", /br-lan is down: ip link set br-lan up/],
    ["missing", /br-lan does not exist$/],
    ["not_a_bridge", /br-lan is not a bridge$/],
  ] as const) {
    const plan = planVm(vm, observed({ network: { ...lan, bridge } }));
    assert.deepEqual(plan.steps, []);
    assert.match(plan.blocked ?? "", sentence);
  }
});

test("with DHCP a VM is starting until it has a lease, and says so again when it loses it", () => {
  const vm = desired({ address: undefined, needsLease: true, startedGeneration: 1 });
  const base = { shown: "starting", ended: undefined, trouble: undefined } as const;
  const seen = (guest: ObservedVm["guest"]) => observed({ ...up, neighbours: [], guest });
  const waiting = { phase: "waiting_for_lease", nameservers: [] } as const;
  for (const lease of [undefined, waiting]) {
    const without = seen({ ...attached, lease });
    assert.deepEqual(planVm(vm, without).steps, []);
    assert.deepEqual(vmStatus({ vm, observed: without, ...base }), { status: "starting", reason: "waiting_for_lease" });
  }
  const bound = { phase: "bound", address: 0x0a000005, prefixLength: 24, nameservers: [] } as const;
  assert.deepEqual(kinds(vm, seen({ ...attached, lease: bound })), ["record_running"]);
  const running = { ...vm, runningGeneration: 1 };
  const status = (guest: ObservedVm["guest"]) => vmStatus({ vm: running, observed: seen(guest), ...base });
  assert.deepEqual(status({ ...attached, lease: bound }), { status: "running", reason: undefined });
  assert.deepEqual(status({ ...attached, lease: waiting }), { status: "running", reason: "waiting_for_lease" });
  assert.deepEqual(status(attached), { status: "running", reason: undefined });
});

test("a process that was seen and is gone is an end, never a second start", () => {
  const plan = kinds(desired({ startedGeneration: 1 }), observed({ taps: [goodTap], folder: true }));
  assert.deepEqual(plan, ["record_end", "delete_tap", "remove_folder"]);
  assert.deepEqual(kinds(desired({ startedGeneration: 1, endedGeneration: 1 }), observed()), []);
});

test("a process of an older generation is stopped before the new one is launched", () => {
  const plan = planVm(desired({ generation: 2, startedGeneration: 1 }), observed({ ...up, guest: attached }));
  assert.deepEqual(
    plan.steps.map(({ kind }) => kind),
    ["ask_shutdown"],
  );
  assert.ok(plan.wakeAtMs !== undefined);
});

test("stopping goes from the agent to the button to the kill, each after its deadline", () => {
  const vm = desired({ desired: "stopped", startedGeneration: 1 });
  const shutdown = { pid: 100, startTicks: 5n };
  assert.deepEqual(kinds(vm, observed(up)), ["ask_shutdown"]);
  const asked = { ...up, shutdowns: [{ ...shutdown, askedAtMs: 1000 }] };
  assert.deepEqual(kinds(vm, observed({ ...asked, nowMs: 10_999 })), []);
  assert.deepEqual(kinds(vm, observed({ ...asked, nowMs: 11_000 })), ["press_power_button"]);
  const pressed = { ...up, shutdowns: [{ ...shutdown, askedAtMs: 1000, buttonAtMs: 11_000 }] };
  assert.deepEqual(kinds(vm, observed({ ...pressed, nowMs: 15_999 })), []);
  assert.deepEqual(kinds(vm, observed({ ...pressed, nowMs: 16_000 })), ["kill"]);
  const refused = { ...up, shutdowns: [{ ...shutdown, askedAtMs: 1000, refused: true }] };
  assert.deepEqual(kinds(vm, observed(refused)), ["press_power_button"]);
});

test("what has our mark and no row goes at once", () => {
  assert.deepEqual(kinds(undefined, observed(up)), ["kill"]);
  assert.deepEqual(kinds(undefined, observed({ ...up, processes: [] })), [
    "detach_guest",
    "delete_tap",
    "delete_neighbour",
    "remove_folder",
  ]);
});

test("a row is deleted only when nothing of the VM is observed any more", () => {
  const vm = desired({ desired: "absent" });
  assert.ok(!kinds(vm, observed({ taps: [goodTap] })).includes("delete_row"));
  assert.deepEqual(kinds(vm, observed()), ["delete_row"]);
});

test("a tap that lost its bridge under a running VM is repaired, and one that was removed is said", () => {
  const vm = desired({ startedGeneration: 1, runningGeneration: 1 });
  assert.deepEqual(kinds(vm, observed({ ...up, taps: [{ ...goodTap, attached: false }] })), ["repair_tap"]);
  const gone = planVm(vm, observed({ ...up, taps: [] }));
  assert.deepEqual(gone.steps, []);
  assert.match(gone.blocked ?? "", /vttap-web was removed/);
});

test("where Volant manages no network, nothing of it is planned", () => {
  const plan = kinds(desired({ tap: "volar-tap-web" }), observed({ network: { managed: false } }));
  assert.deepEqual(plan, ["launch", "record_started", "attach_guest"]);
});

const arbitraryTap = fc.record({
  index: fc.integer({ min: 1, max: 9 }),
  name: fc.constantFrom("vttap-web", "vttap-old"),
  up: fc.boolean(),
  attached: fc.boolean(),
  usable: fc.boolean(),
  owner: fc.constantFrom(UID, 0, undefined),
});
const arbitraryGuest = fc.record({
  generation: fc.integer({ min: 1, max: 3 }),
  attached: fc.boolean(),
  configured: fc.boolean(),
  workload: fc.constantFrom("waiting_for_config", "starting", "running", "exited", "failed"),
  health: fc.constantFrom("unknown", "healthy", "unhealthy"),
  trouble: fc.constant(undefined),
});
const arbitraryState = fc
  .record({
    desired: fc.constantFrom("running", "stopped", "absent", undefined),
    generation: fc.integer({ min: 1, max: 3 }),
    started: fc.integer({ min: 0, max: 3 }),
    running: fc.integer({ min: 0, max: 3 }),
    ended: fc.integer({ min: 0, max: 3 }),
    bridge: fc.constantFrom("up", "down"),
    managed: fc.boolean(),
    generations: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }),
    taps: fc.uniqueArray(arbitraryTap, { maxLength: 2, selector: ({ name }) => name }),
    neighbours: fc.uniqueArray(
      fc.record({ address: fc.integer({ min: 2, max: 4 }), mac: fc.constantFrom(neighbour.mac, "other") }),
      { maxLength: 2, selector: ({ address }) => address },
    ),
    folder: fc.boolean(),
    guest: fc.option(arbitraryGuest, { nil: undefined }),
    obedient: fc.boolean(),
  })
  .map((draw): ModelState => {
    const vm =
      draw.desired === undefined
        ? undefined
        : desired({
            desired: draw.desired,
            generation: draw.generation,
            startedGeneration: Math.min(draw.started, draw.generation),
            runningGeneration: Math.min(draw.running, draw.generation),
            endedGeneration: Math.min(draw.ended, draw.generation),
          });
    return {
      vm,
      nowMs: 0,
      bridge: draw.bridge,
      managed: draw.managed,
      processes: draw.generations.map((generation, index) => ({
        vmId: 1,
        generation: Math.min(generation, draw.generation),
        pid: 100 + index,
        startTicks: 5n,
      })),
      taps: draw.managed ? draw.taps : [],
      foreignTap: false,
      neighbours: draw.managed ? draw.neighbours : [],
      folder: draw.folder,
      guest: draw.guest,
      shutdowns: [],
      obedient: draw.obedient,
      nextId: 1000,
      endedStatus: undefined,
    };
  });

/** What the guest does by itself while nothing is planned: it calls home, and a configured workload becomes well. */
function guestProgresses(state: ModelState): boolean {
  const { guest } = state;
  if (guest === undefined) return false;
  const next: typeof guest = guest.configured
    ? { ...guest, attached: true, workload: "running", health: "healthy" }
    : { ...guest, attached: true };
  const changed = JSON.stringify(next) !== JSON.stringify(guest);
  state.guest = next;
  return changed;
}

test("from any state of the host, plans lead in a bounded number of rounds to what is wanted, and of an absent VM nothing is left", () => {
  fc.assert(
    fc.property(arbitraryState, (state) => {
      const before = state.vm;
      let rounds = 0;
      for (; ; rounds += 1) {
        assert.ok(rounds < 30, "the plans do not converge");
        const plan = planVm(state.vm, observeModel(state));
        for (const step of plan.steps) executeOnModel(state, step);
        if (plan.steps.length > 0) {
          if (state.vm === undefined && plan.steps.at(-1)?.kind === "delete_row") break;
          continue;
        }
        if (plan.wakeAtMs === undefined) {
          if (!guestProgresses(state)) break;
          continue;
        }
        assert.ok(plan.wakeAtMs > state.nowMs, "a plan without steps must not ask for an instant that has passed");
        state.nowMs = plan.wakeAtMs;
      }
      const left = { taps: state.taps, neighbours: state.neighbours, folder: state.folder, guest: state.guest };
      const { vm } = state;
      if (vm === undefined || vm.desired === "stopped" || vm.endedGeneration === vm.generation) {
        assert.deepEqual(state.processes, []);
        assert.deepEqual(left, { taps: [], neighbours: [], folder: false, guest: undefined });
      }
      if (before?.desired === "absent") assert.equal(vm, undefined);
      if (vm?.desired === "running" && vm.endedGeneration !== vm.generation) {
        assert.equal(state.processes.length, 1);
        assert.equal(state.processes[0]?.generation, vm.generation);
        assert.equal(vm.runningGeneration, vm.generation);
        if (before?.runningGeneration !== before?.generation) {
          const status = vmStatus({
            vm,
            observed: observeModel(state),
            shown: "starting",
            ended: undefined,
            trouble: undefined,
          });
          assert.equal(status.status, "running");
        }
      }
    }),
    { numRuns: 2000 },
  );
});
