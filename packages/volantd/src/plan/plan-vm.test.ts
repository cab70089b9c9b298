import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { executeOnModel, observeModel, type ModelState } from "../testing/model-host.ts";
import type { DesiredVm, ObservedTap, ObservedVm } from "./observed.ts";
import { overdueAtMs, passedLimitMs, startingSince } from "./overdue.ts";
import { planVm } from "./plan-vm.ts";
import { steadySince } from "./restart.ts";
import { holdsTo, type VmPolicy } from "./policy.ts";
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
    backends: [],
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
const policy: VmPolicy = {
  vmId: 1,
  tap: "vttap-web",
  mac: "02:ab:cd:00:00:01",
  mode: "bridged",
  addresses: ["10.0.0.2"],
  antiSpoof: true,
};
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

test("what a guest may send is settled before it has a tap, and let go of when the tap is gone", () => {
  const none = { usable: true, intact: true, entry: undefined } as const;
  const { steps } = planVm(desired({ policy }), observed({ policy: none }));
  assert.deepEqual(steps.slice(0, 2), [
    { kind: "put_policy", policy },
    { kind: "create_tap", name: "vttap-web", uid: UID, bridge: undefined, guarded: true },
  ]);
  const entry = { ...policy, antiSpoof: true } as const;
  const gone = kinds(desired({ desired: "absent" }), observed({ taps: [goodTap], policy: { ...none, entry } }));
  assert.deepEqual(gone, ["delete_tap", "remove_policy"]);
  assert.deepEqual(kinds(undefined, observed({ policy: { ...none, entry: "damaged" } })), ["remove_policy"]);
});

test("rules, an entry or a guard that is not as it should be is put right under a running VM", () => {
  const vm = desired({ policy, startedGeneration: 1, runningGeneration: 1 });
  const guarded = { ...goodTap, guarded: true };
  const entry = { ...policy, antiSpoof: true } as const;
  const seen = { usable: true, intact: true, entry } as const;
  assert.deepEqual(kinds(vm, observed({ ...up, taps: [guarded], policy: seen })), []);
  for (const broken of [
    { ...seen, intact: false },
    { ...seen, entry: undefined },
    { ...seen, entry: "damaged" },
    { ...seen, entry: { ...entry, addresses: ["10.0.0.3"] } },
    { ...seen, entry: { ...entry, mac: "02:00:00:00:00:09" } },
    { ...seen, entry: { vmId: 1, tap: "vttap-web", antiSpoof: false } },
  ] as const) {
    assert.deepEqual(kinds(vm, observed({ ...up, taps: [guarded], policy: broken })), ["put_policy"]);
  }
  assert.deepEqual(kinds(vm, observed({ ...up, policy: seen })), ["repair_tap"]);
});

test("where nothing can hold a guest it does not start, unless the operator lets it send what it likes", () => {
  const unusable = { usable: false, reason: "there is no nft" } as const;
  const held = planVm(desired({ policy }), observed({ policy: unusable }));
  assert.deepEqual([held.steps, held.blocked], [[], "there is no nft"]);
  const free = planVm(desired({ policy: { ...policy, antiSpoof: false } }), observed({ policy: unusable }));
  assert.equal(free.steps[0]?.kind, "create_tap");
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
  const others = planVm(desired(), observed({ foreignTap: true, tapHolder: "ffff0000" }));
  assert.deepEqual(others.steps, []);
  assert.match(others.blocked ?? "", /another Volant installation's \(ffff0000\).*: ip link delete dev vttap-web$/);
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

test("a VM whose mode has no Ethernet loses the tap and the neighbour entry of the mode before, and needs no bridge", () => {
  const vm = desired({ tap: undefined, address: undefined });
  const network = { managed: true, bridge: "missing", bridgeName: "vbr0", addressed: false } as const;
  const steps = kinds(vm, observed({ network, taps: [goodTap], neighbours: [neighbour] }));
  assert.deepEqual(steps, ["delete_tap", "delete_neighbour", "launch", "record_started", "attach_guest"]);
  const live = desired({ tap: undefined, address: undefined, startedGeneration: 1, runningGeneration: 1 });
  assert.deepEqual(kinds(live, observed({ ...up, taps: [goodTap], neighbours: [] })), ["delete_tap"]);
});

test("a start is late once its limit has passed since its hypervisor was first seen, and says what it lacks", () => {
  const vm = desired({ startedGeneration: 1 });
  const seen = observed({ ...up, guest: undefined });
  const starting = startingSince(vm, seen, undefined);
  assert.deepEqual(starting, { generation: 1, sinceMs: 1000 });
  assert.equal(startingSince(vm, observed({ ...up, nowMs: 9000 }), starting), starting);
  assert.equal(startingSince(desired({ runningGeneration: 1 }), seen, starting), undefined);
  assert.equal(startingSince(vm, observed(), starting), undefined, "no hypervisor yet");
  assert.deepEqual([overdueAtMs(starting, 5000, 2000), overdueAtMs(starting, 5000, 6000)], [6000, undefined]);
  assert.deepEqual([passedLimitMs(starting, 5000, 5999), passedLimitMs(starting, 5000, 6000)], [undefined, 5000]);
  const reason = (given: DesiredVm, changes: Partial<ObservedVm>) =>
    vmStatus({
      vm: given,
      observed: observed({ ...up, ...changes }),
      shown: "starting",
      ended: undefined,
      trouble: undefined,
      passedLimitMs: 5000,
    });
  assert.match(String(reason(vm, { guest: undefined }).reason), /not called home after 5 s.*still waiting/);
  assert.match(
    String(reason(vm, { guest: { ...attached, health: "unknown" } }).reason),
    /not running after 5 s: waiting_for_health/,
  );
  const refusing = { ...attached, attached: false, configured: false, refusal: "it speaks protocol 1" };
  assert.equal(reason(vm, { guest: refusing }).reason, "it speaks protocol 1");
  assert.match(
    String(reason(vm, { guest: { ...refusing, generation: 9 } }).reason),
    /not called home/,
    "an earlier run",
  );
  const dhcp = desired({ address: undefined, needsLease: true, startedGeneration: 1 });
  const late = reason(dhcp, {});
  assert.equal(late.status, "starting");
  assert.equal(late.reason, "no lease after 5 s on bridge vbr0: no DHCP server has answered; still trying");
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
  const short = { ...vm, stopTimeoutMs: 100 };
  assert.deepEqual(planVm(short, observed({ ...asked, nowMs: 1099 })).wakeAtMs, 1100);
  assert.deepEqual(kinds(short, observed({ ...asked, nowMs: 1100 })), ["press_power_button"]);
  assert.deepEqual(kinds(short, observed({ ...pressed, nowMs: 11_050 })), ["kill"]);
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

test("what serves a vsock device goes with its hypervisor, and before the next one starts; while that runs it is left alone", () => {
  const backends = [{ vmId: 1, generation: 1, pid: 200, startTicks: 5n }];
  const vm = desired({ startedGeneration: 1, runningGeneration: 1 });
  assert.deepEqual(kinds(vm, observed({ ...up, backends })), []);
  const dead = { ...up, processes: [], backends };
  assert.deepEqual(kinds(vm, observed(dead)).slice(0, 3), ["record_end", "detach_guest", "end_backend"]);
  assert.deepEqual(kinds(desired(), observed({ backends })).indexOf("end_backend"), 0);
  const next = desired({ generation: 2, startedGeneration: 2, runningGeneration: 2 });
  const process2 = { ...process1, generation: 2 };
  const guest = { ...attached, generation: 2 };
  assert.deepEqual(kinds(next, observed({ ...up, guest, processes: [process2], backends })), ["end_backend"]);
  assert.deepEqual(kinds(undefined, observed({ backends })), ["end_backend"]);
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

test("a running VM whose runtime folder was removed is left as it is, and says what to do", () => {
  const vm = desired({ startedGeneration: 1, runningGeneration: 1 });
  const lost = planVm(vm, observed({ ...up, folder: false }));
  assert.deepEqual(lost.steps, []);
  assert.equal(lost.blocked, "its runtime folder was removed: volar vms restart web makes a new one");
  assert.equal(planVm(vm, observed(up)).blocked, undefined);
});

test("where Volant manages no network, nothing of it is planned", () => {
  const plan = kinds(desired({ tap: "volar-tap-web" }), observed({ network: { managed: false } }));
  assert.deepEqual(plan, ["launch", "record_started", "attach_guest"]);
});

test("a VM that has ended and is to be started again gets its time first, is taken down, waits, and is started once nothing of it is left", () => {
  const ended = desired({ startedGeneration: 1, endedGeneration: 1, restart: { dueAtMs: undefined } });
  assert.deepEqual(kinds(ended, observed(up)), ["schedule_restart"]);
  const waiting = { ...ended, restart: { dueAtMs: 5000 } };
  const gone = { guest: undefined, shutdowns: [] };
  assert.deepEqual(kinds(waiting, observed({ ...up, processes: [], ...gone })), [
    "delete_tap",
    "delete_neighbour",
    "remove_folder",
  ]);
  assert.deepEqual(planVm(waiting, observed()), { steps: [], wakeAtMs: 5000 });
  assert.deepEqual(kinds(waiting, observed({ nowMs: 5000 })), ["restart"]);
  assert.deepEqual(kinds(waiting, observed({ ...up, nowMs: 5000 })), ["ask_shutdown"], "not beside its old process");
  assert.deepEqual(kinds({ ...waiting, desired: "stopped" }, observed({ nowMs: 5000 })), [], "a user's word wins");
  assert.deepEqual(kinds({ ...waiting, desired: "absent" }, observed({ nowMs: 5000 })), ["delete_row"]);
});

test("a silent agent is shown first, and is its VM's end only after the limit, and only where there is one", () => {
  const runs = desired({ startedGeneration: 1, runningGeneration: 1 });
  const silent = (nowMs: number): ObservedVm => observed({ ...up, nowMs, guest: { ...attached, silentSinceMs: 1000 } });
  const shown = (seen: ObservedVm) =>
    vmStatus({ vm: runs, observed: seen, shown: "running", ended: undefined, trouble: undefined });
  assert.deepEqual(planVm(runs, silent(1500)), { steps: [], lookAtMs: 2000 });
  assert.deepEqual(shown(silent(1500)), { status: "running", reason: undefined });
  assert.deepEqual(shown(silent(2000)), { status: "running", reason: "the guest's agent does not answer" });
  assert.deepEqual(planVm(runs, silent(1e9)), { steps: [] }, "without a limit it is left alone");
  const limited = { ...runs, hangLimitMs: 30_000 };
  assert.deepEqual(planVm(limited, silent(2000)), { steps: [], lookAtMs: 31_000 });
  const unheard = { ...attached, silentSinceMs: 1000, excusedAtMs: 90_000 };
  const seen = (nowMs: number): ObservedVm => observed({ ...up, nowMs, guest: unheard });
  assert.deepEqual(planVm(limited, seen(90_000)), { steps: [], lookAtMs: 105_000 }, "it may not be to blame");
  assert.deepEqual(planVm(limited, seen(119_999)), { steps: [], lookAtMs: 120_000 });
  assert.deepEqual(kinds(limited, seen(120_000)), ["record_hang"]);
  const paused = { ...unheard, isPaused: true };
  assert.equal(shown(observed({ ...up, nowMs: 90_000, guest: paused })).reason, "it is paused");
  assert.deepEqual(planVm(limited, silent(31_000)).steps, [{ kind: "record_hang", generation: 1, silentMs: 30_000 }]);
});

test("a running VM says when its workload is unwell", () => {
  const runs = desired({ startedGeneration: 1, runningGeneration: 1 });
  const guest = { ...attached, health: "unhealthy", trouble: "the workload is unhealthy: it said 500" } as const;
  const view = vmStatus({
    vm: runs,
    observed: observed({ ...up, guest }),
    shown: "running",
    ended: undefined,
    trouble: undefined,
  });
  assert.deepEqual(view, { status: "running", reason: "the workload is unhealthy: it said 500" });
});

test("earlier failures are forgotten once the VM has been well for long enough", () => {
  const runs = desired({ startedGeneration: 1, runningGeneration: 1, steadyAtMs: 60_000 });
  assert.deepEqual(planVm(runs, observed(up)), { steps: [], lookAtMs: 60_000 });
  assert.deepEqual(kinds(runs, observed({ ...up, nowMs: 60_000 })), ["forget_failures"]);
  const since = steadySince(runs, observed(up), undefined);
  assert.deepEqual(since, { generation: 1, sinceMs: 1000 });
  assert.deepEqual(steadySince(runs, observed({ ...up, nowMs: 9000 }), since), since);
  const unwell = { ...attached, health: "unhealthy" } as const;
  assert.equal(steadySince(runs, observed({ ...up, guest: unwell }), since), undefined);
  assert.equal(steadySince(runs, observed({ ...up, guest: { ...attached, silentSinceMs: 1 } }), since), undefined);
});

const arbitraryTap = fc.record({
  index: fc.integer({ min: 1, max: 9 }),
  name: fc.constantFrom("vttap-web", "vttap-old"),
  up: fc.boolean(),
  attached: fc.boolean(),
  usable: fc.boolean(),
  guarded: fc.boolean(),
  owner: fc.constantFrom(UID, 0, undefined),
});
const arbitraryPolicy = fc.constantFrom(
  undefined,
  "damaged" as const,
  { ...policy, antiSpoof: true } as const,
  { ...policy, addresses: ["10.0.0.9"], antiSpoof: true } as const,
  { vmId: 1, tap: "vttap-web", antiSpoof: false } as const,
);
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
    backends: fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 2 }),
    taps: fc.uniqueArray(arbitraryTap, { maxLength: 2, selector: ({ name }) => name }),
    neighbours: fc.uniqueArray(
      fc.record({ address: fc.integer({ min: 2, max: 4 }), mac: fc.constantFrom(neighbour.mac, "other") }),
      { maxLength: 2, selector: ({ address }) => address },
    ),
    policy: arbitraryPolicy,
    wanted: fc.constantFrom(undefined, policy, { ...policy, antiSpoof: false }),
    restart: fc.constantFrom(undefined, { dueAtMs: undefined }, { dueAtMs: 0 }, { dueAtMs: 5000 }),
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
            policy: draw.wanted,
            restart: draw.restart,
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
      backends: draw.backends.map((generation, index) => ({ vmId: 1, generation, pid: 200 + index, startTicks: 5n })),
      taps: draw.managed ? draw.taps : [],
      foreignTap: false,
      neighbours: draw.managed ? draw.neighbours : [],
      policy: draw.managed ? draw.policy : undefined,
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
      const { taps, neighbours, folder, guest, policy: entry } = state;
      const left = { taps, neighbours, folder, guest, entry };
      const { vm } = state;
      if (vm === undefined || vm.desired === "stopped" || vm.endedGeneration === vm.generation) {
        assert.deepEqual([...state.processes, ...state.backends], []);
        assert.deepEqual(left, { taps: [], neighbours: [], folder: false, guest: undefined, entry: undefined });
      } else if (state.managed && vm.policy !== undefined && taps.some(({ name }) => name === vm.tap)) {
        assert.ok(holdsTo(entry, vm.policy));
        for (const tap of taps) if (tap.name === vm.tap) assert.equal(tap.guarded, vm.policy.antiSpoof);
      }
      if (before?.desired === "absent") assert.equal(vm, undefined);
      if (vm?.desired === "running" && vm.endedGeneration !== vm.generation) {
        assert.equal(state.processes.length, 1);
        assert.equal(state.processes[0]?.generation, vm.generation);
        assert.ok(state.backends.every(({ generation }) => generation === vm.generation));
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
