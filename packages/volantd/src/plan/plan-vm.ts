/**
 * The planner: what should exist, what does, and the steps from one to the other. Pure; the engine observes again after each plan, so a plan
 * goes as far as can be known now.
 */
import type { DesiredVm, ObservedVm } from "./observed.ts";
import { DELETE_PATIENCE, planStop, STOP_PATIENCE, type StopPatience } from "./plan-stop.ts";
import type { Plan, Step } from "./step.ts";

/** The VM's part of the host, taken away: its processes first, since they hold the rest. */
function planTeardown(observed: ObservedVm, patience: StopPatience | "none", before: readonly Step[] = []): Plan {
  if (observed.processes.length > 0) return planStop(observed.processes, observed, patience);
  const steps: Step[] = [...before];
  if (observed.guest !== undefined) steps.push({ kind: "detach_guest" });
  for (const tap of observed.taps) steps.push({ kind: "delete_tap", tap });
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

/** The network of a VM that is not up yet: whatever is wrong with its tap, a new one is made. */
function planNetwork(vm: DesiredVm, observed: ObservedVm): NetworkPlan {
  if (!observed.network.managed || vm.tap === undefined) return { steps: [] };
  const bridge = planBridge(observed);
  if (bridge.blocked !== undefined) return bridge;
  const good = observed.taps.find(
    (tap) => tap.name === vm.tap && tap.usable && tap.up && tap.attached && tap.owner === vm.uid,
  );
  const steps: Step[] = [...bridge.steps];
  for (const tap of observed.taps) if (tap !== good) steps.push({ kind: "delete_tap", tap });
  if (observed.foreignTap) {
    return { steps, blocked: `a link named ${vm.tap} exists that is not this VM's: it is left alone` };
  }
  if (good === undefined) steps.push({ kind: "create_tap", name: vm.tap, uid: vm.uid, bridge: vm.bridge });
  return { steps: [...steps, ...planNeighbours(vm, observed)] };
}

/** The network of a VM whose hypervisor holds its tap open: repaired in place where that is possible. */
function planLiveNetwork(vm: DesiredVm, observed: ObservedVm): NetworkPlan {
  if (!observed.network.managed || vm.tap === undefined) return { steps: [] };
  const bridge = planBridge(observed);
  if (bridge.blocked !== undefined) return bridge;
  const tap = observed.taps.find(({ name }) => name === vm.tap);
  if (tap === undefined) {
    return {
      steps: bridge.steps,
      blocked: `its tap ${vm.tap} was removed: volar vms restart ${vm.name} makes a new one`,
    };
  }
  const repair: Step[] = tap.up && tap.attached ? [] : [{ kind: "repair_tap", tap, bridge: vm.bridge }];
  return { steps: [...bridge.steps, ...repair, ...planNeighbours(vm, observed)] };
}

/** Whether the guest has all that `running` promises. */
export function isWell(
  vm: Pick<DesiredVm, "generation" | "healthCheck" | "needsLease">,
  observed: ObservedVm,
): boolean {
  const { guest } = observed;
  if (guest === undefined || guest.generation !== vm.generation || !guest.attached || !guest.configured) return false;
  if (vm.needsLease && guest.lease?.address === undefined) return false;
  return guest.workload === "running" && (!vm.healthCheck || guest.health === "healthy");
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

function planRunning(vm: DesiredVm, observed: ObservedVm): Plan {
  const { generation } = vm;
  const current = observed.processes.filter((process) => process.generation === generation);
  const others = observed.processes.filter((process) => process.generation !== generation);
  // Two processes of one generation can't both be the VM: only a bug or a forger makes a second one.
  if (others.length > 0) return planStop(others, observed, STOP_PATIENCE);
  if (current.length > 1) return planStop(current, observed, "none");
  if (vm.endedGeneration === generation) return planTeardown(observed, STOP_PATIENCE);
  const started: Step[] = vm.startedGeneration === generation ? [] : [{ kind: "record_started", generation }];
  if (current.length === 1) {
    const network = planLiveNetwork(vm, observed);
    return {
      steps: [...started, ...network.steps, ...planGuest(vm, observed)],
      ...(network.blocked === undefined ? {} : { blocked: network.blocked }),
    };
  }
  if (vm.startedGeneration === generation) {
    return planTeardown(observed, STOP_PATIENCE, [{ kind: "record_end", generation }]);
  }
  const network = planNetwork(vm, observed);
  if (network.blocked !== undefined) return { steps: network.steps, blocked: network.blocked };
  return {
    steps: [
      ...(observed.guest === undefined ? [] : [{ kind: "detach_guest" } as const]),
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
    const plan = planTeardown(observed, STOP_PATIENCE);
    const ended = vm.endedGeneration === vm.generation;
    if (plan.steps.length > 0 || observed.processes.length > 0 || ended) return plan;
    return { steps: [{ kind: "record_stopped", generation: vm.generation }] };
  }
  const plan = planTeardown(observed, DELETE_PATIENCE);
  if (plan.steps.length > 0 || observed.processes.length > 0) return plan;
  return { steps: [{ kind: "delete_row" }] };
}
