/**
 * The planner: what should exist, what does, and the steps from one to the other. Pure; the engine observes again after each plan, so a plan
 * goes as far as can be known now.
 */
import { othersTap } from "../model/mark.ts";
import type { DesiredVm, ObservedVm } from "./observed.ts";
import { holdsTo } from "./policy.ts";
import { DELETE_PATIENCE, planStop, type StopPatience, stopPatience } from "./plan-stop.ts";
import { hungAtMs, silenceShownAtMs } from "./silence.ts";
import type { Plan, Step } from "./step.ts";
import { isWell } from "./well.ts";

/** Ends what serves the vsock device of a hypervisor that is not there. One that is there keeps its own, which nothing can replace while it runs. */
function planBackends({ processes, backends }: ObservedVm): Step[] {
  return backends
    .filter((backend) => !processes.some(({ generation }) => generation === backend.generation))
    .map((process) => ({ kind: "end_backend", process }));
}

/** The VM's part of the host, taken away: its processes first, since they hold the rest. */
function planTeardown(observed: ObservedVm, patience: StopPatience | "none", before: readonly Step[] = []): Plan {
  if (observed.processes.length > 0) return planStop(observed.processes, observed, patience);
  const steps: Step[] = [...before];
  if (observed.guest !== undefined) steps.push({ kind: "detach_guest" });
  steps.push(...planBackends(observed));
  for (const tap of observed.taps) steps.push({ kind: "delete_tap", tap });
  const { policy } = observed;
  if (policy?.usable === true && policy.entry !== undefined) steps.push({ kind: "remove_policy" });
  for (const { address } of observed.neighbours) steps.push({ kind: "delete_neighbour", address });
  if (observed.folder) steps.push({ kind: "remove_folder" });
  return { steps };
}

interface NetworkPlan {
  readonly steps: readonly Step[];
  readonly blocked?: string;
}

function planBridge(observed: ObservedVm): NetworkPlan {
  const { network } = observed;
  if (!network.managed || network.bridge === "up") return { steps: [] };
  if (network.bridge === "down") {
    if (network.foreign !== true) return { steps: [{ kind: "bring_bridge_up" }] };
    return { steps: [], blocked: `bridge ${network.bridgeName} is down: ip link set ${network.bridgeName} up` };
  }
  const problem = network.bridge === "missing" ? "does not exist" : "is not a bridge";
  if (network.foreign === true) return { steps: [], blocked: `bridge ${network.bridgeName} ${problem}` };
  return { steps: [], blocked: `bridge ${network.bridgeName} ${problem}: run volar setup` };
}

function planNeighbours(vm: DesiredVm, observed: ObservedVm): Step[] {
  const right = observed.neighbours.some(({ address, mac }) => address === vm.address && mac === vm.mac);
  const steps: Step[] = observed.neighbours
    .filter(({ address }) => address !== vm.address)
    .map(({ address }) => ({ kind: "delete_neighbour", address }));
  if (vm.address !== undefined && !right) steps.push({ kind: "set_neighbour", address: vm.address, mac: vm.mac });
  return steps;
}

/** What is left of a network that the VM's mode has no longer. */
function planNoNetwork({ taps, neighbours, policy }: ObservedVm): NetworkPlan {
  const deleteTaps: Step[] = taps.map((tap) => ({ kind: "delete_tap", tap }));
  const deleteNeighbours: Step[] = neighbours.map(({ address }) => ({ kind: "delete_neighbour", address }));
  // After the tap: without its entry a tap that still carried frames would carry any.
  const entry: Step[] = policy?.usable === true && policy.entry !== undefined ? [{ kind: "remove_policy" }] : [];
  return { steps: [...deleteTaps, ...deleteNeighbours, ...entry] };
}

/** What the tap lets through. A VM that is to be held to something does not run where nothing can hold it. */
function planPolicy(vm: DesiredVm, observed: ObservedVm): NetworkPlan {
  const { policy: wanted } = vm;
  const { policy: seen } = observed;
  if (wanted === undefined || seen === undefined) return { steps: [] };
  if (!seen.usable) return wanted.antiSpoof ? { steps: [], blocked: seen.reason } : { steps: [] };
  if (seen.intact && holdsTo(seen.entry, wanted)) return { steps: [] };
  return { steps: [{ kind: "put_policy", policy: wanted }] };
}

function isGuarded({ policy }: DesiredVm): boolean {
  return policy?.antiSpoof === true;
}

function takenTap(tap: string, holder: string | undefined): string {
  if (holder === undefined) return `a link named ${tap} exists that is not this VM's: it is left alone`;
  const { message, hint } = othersTap(tap, holder);
  return `${message}; ${hint}`;
}

/** The network of a VM that is not up yet: whatever is wrong with its tap, a new one is made. */
function planNetwork(vm: DesiredVm, observed: ObservedVm): NetworkPlan {
  if (!observed.network.managed) return { steps: [] };
  if (vm.tap === undefined) return planNoNetwork(observed);
  const bridge = planBridge(observed);
  if (bridge.blocked !== undefined) return bridge;
  // First of all: an entry would hold the foreign link, too.
  if (observed.foreignTap) {
    const taps: Step[] = observed.taps.map((tap) => ({ kind: "delete_tap", tap }));
    return { steps: [...bridge.steps, ...taps], blocked: takenTap(vm.tap, observed.tapHolder) };
  }
  const policy = planPolicy(vm, observed);
  if (policy.blocked !== undefined) return { ...policy, steps: bridge.steps };
  const guarded = isGuarded(vm);
  const good = observed.taps.find(
    (tap) =>
      tap.name === vm.tap &&
      tap.usable &&
      tap.up &&
      tap.attached &&
      tap.owner === vm.uid &&
      (tap.guarded === true) === guarded,
  );
  const steps: Step[] = [...bridge.steps, ...policy.steps];
  for (const tap of observed.taps) if (tap !== good) steps.push({ kind: "delete_tap", tap });
  if (good === undefined) {
    const { tap: name, uid, bridge: joined } = vm;
    steps.push({ kind: "create_tap", name, uid, bridge: joined, ...(guarded ? { guarded } : {}) });
  }
  return { steps: [...steps, ...planNeighbours(vm, observed)] };
}

/** The network of a VM whose hypervisor holds its tap open: repaired in place where that is possible. */
function planLiveNetwork(vm: DesiredVm, observed: ObservedVm): NetworkPlan {
  if (!observed.network.managed) return { steps: [] };
  if (vm.tap === undefined) return planNoNetwork(observed);
  const bridge = planBridge(observed);
  if (bridge.blocked !== undefined) return bridge;
  const tap = observed.taps.find(({ name }) => name === vm.tap);
  if (tap === undefined) {
    return {
      steps: bridge.steps,
      blocked: `its tap ${vm.tap} was removed: volar vms restart ${vm.name} makes a new one`,
    };
  }
  const policy = planPolicy(vm, observed);
  const guarded = isGuarded(vm);
  const right = tap.up && tap.attached && (tap.guarded === true) === guarded;
  const repair: Step[] = right ? [] : [{ kind: "repair_tap", tap, bridge: vm.bridge, ...(guarded ? { guarded } : {}) }];
  return { ...policy, steps: [...bridge.steps, ...policy.steps, ...repair, ...planNeighbours(vm, observed)] };
}

function planGuest(vm: DesiredVm, observed: ObservedVm): Step[] {
  const { generation } = vm;
  const { guest } = observed;
  if (guest === undefined) return [{ kind: "attach_guest", generation }];
  if (guest.generation !== generation) return [{ kind: "detach_guest" }, { kind: "attach_guest", generation }];
  if (guest.attached && !guest.configured) return [{ kind: "configure_guest", generation }];
  if (vm.runningGeneration !== generation && isWell(vm, observed)) return [{ kind: "record_running", generation }];
  return [];
}

/** A VM that has ended: taken down, and then started again if its policy says so. */
function planEnded(vm: DesiredVm, observed: ObservedVm): Plan {
  const { generation, restart } = vm;
  const teardown = planTeardown(observed, stopPatience(vm.stopTimeoutMs));
  if (restart === undefined) return teardown;
  // At once, so that users see when: the teardown may take its time.
  if (restart.dueAtMs === undefined) return { steps: [{ kind: "schedule_restart", generation }] };
  if (teardown.steps.length > 0 || observed.processes.length > 0) return teardown;
  if (restart.dueAtMs > observed.nowMs) return { steps: [], wakeAtMs: restart.dueAtMs };
  return { steps: [{ kind: "restart", generation }] };
}

/** The steps of a VM whose process is there, and when to look at it again. */
function planLive(vm: DesiredVm, observed: ObservedVm, started: readonly Step[]): Plan {
  const { generation, hangLimitMs, steadyAtMs } = vm;
  const { guest, nowMs } = observed;
  const hungAt = hungAtMs(guest, generation, hangLimitMs);
  if (hungAt !== undefined && hungAt <= nowMs) {
    const silentMs = nowMs - (guest?.silentSinceMs ?? nowMs);
    return { steps: [...started, { kind: "record_hang", generation, silentMs }] };
  }
  const network = planLiveNetwork(vm, observed);
  // It goes on, but its sockets have no names any more: whoever is not connected to it already can't be.
  const lost = observed.folder
    ? undefined
    : `its runtime folder was removed: volar vms restart ${vm.name} makes a new one`;
  const blocked = network.blocked ?? lost;
  const isSteady = steadyAtMs !== undefined && steadyAtMs <= nowMs;
  // What excuses a silence may end unseen.
  const excuse = guest?.excusedAtMs === nowMs && hangLimitMs !== undefined ? nowMs + hangLimitMs / 2 : undefined;
  const later = [hungAt, excuse, silenceShownAtMs(guest, generation), steadyAtMs].filter(
    (at) => at !== undefined && at > nowMs,
  );
  return {
    steps: [
      ...started,
      ...planBackends(observed),
      ...network.steps,
      ...planGuest(vm, observed),
      ...(isSteady ? [{ kind: "forget_failures", generation } as const] : []),
    ],
    ...(blocked === undefined ? {} : { blocked }),
    ...(later.length === 0 ? {} : { lookAtMs: Math.min(...(later as number[])) }),
  };
}

function planRunning(vm: DesiredVm, observed: ObservedVm): Plan {
  const { generation } = vm;
  const current = observed.processes.filter((process) => process.generation === generation);
  const others = observed.processes.filter((process) => process.generation !== generation);
  // Two processes of one generation can't both be the VM: only a bug or a forger makes a second one.
  if (others.length > 0) return planStop(others, observed, stopPatience(vm.stopTimeoutMs));
  if (current.length > 1) return planStop(current, observed, "none");
  if (vm.endedGeneration === generation) return planEnded(vm, observed);
  const started: Step[] = vm.startedGeneration === generation ? [] : [{ kind: "record_started", generation }];
  if (current.length === 1) return planLive(vm, observed, started);
  if (vm.startedGeneration === generation) {
    return planTeardown(observed, stopPatience(vm.stopTimeoutMs), [{ kind: "record_end", generation }]);
  }
  const network = planNetwork(vm, observed);
  if (network.blocked !== undefined) return { steps: network.steps, blocked: network.blocked };
  return {
    steps: [
      ...(observed.guest === undefined ? [] : [{ kind: "detach_guest" } as const]),
      ...planBackends(observed),
      ...network.steps,
      { kind: "launch", generation },
      ...started,
      { kind: "attach_guest", generation },
    ],
  };
}

/**
 * The steps that bring a VM's part of the host to what is wanted. No steps and nothing blocked: it is there.
 *
 * @param vm its row; undefined for what carries our mark and has no row: an orphan, which goes at once
 */
export function planVm(vm: DesiredVm | undefined, observed: ObservedVm): Plan {
  if (vm === undefined) return planTeardown(observed, "none");
  if (vm.desired === "running") return planRunning(vm, observed);
  if (vm.desired === "stopped") {
    const plan = planTeardown(observed, stopPatience(vm.stopTimeoutMs));
    const ended = vm.endedGeneration === vm.generation;
    if (plan.steps.length > 0 || observed.processes.length > 0 || ended) return plan;
    return { steps: [{ kind: "record_stopped", generation: vm.generation }] };
  }
  const plan = planTeardown(observed, DELETE_PATIENCE);
  if (plan.steps.length > 0 || observed.processes.length > 0) return plan;
  return { steps: [{ kind: "delete_row" }] };
}
