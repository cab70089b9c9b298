/** A host small enough to reason about: carries out steps on plain data, for tests of the planner. */
import type { HypervisorProcess } from "../runtime/runtime.ts";
import type {
  DesiredVm,
  ObservedGuest,
  ObservedNeighbour,
  ObservedTap,
  ObservedVm,
  Shutdown,
} from "../plan/observed.ts";
import { asSeen, type SeenPolicy } from "../plan/policy.ts";
import type { Step } from "../plan/step.ts";

export interface ModelState {
  vm: DesiredVm | undefined;
  nowMs: number;
  bridge: "up" | "down" | "missing" | "not_a_bridge";
  managed: boolean;
  processes: HypervisorProcess[];
  backends: HypervisorProcess[];
  taps: ObservedTap[];
  foreignTap: boolean;
  neighbours: ObservedNeighbour[];
  /** The entry of the VM's tap. */
  policy: SeenPolicy | "damaged" | undefined;
  folder: boolean;
  guest: ObservedGuest | undefined;
  shutdowns: Shutdown[];
  /** Whether a guest that is asked to shut down does. */
  obedient: boolean;
  nextId: number;
  endedStatus: "stopped" | "crashed" | undefined;
}

export function observeModel(state: ModelState): ObservedVm {
  return {
    nowMs: state.nowMs,
    network: state.managed
      ? { managed: true, bridge: state.bridge, bridgeName: "vbr0", addressed: state.bridge === "up" }
      : { managed: false },
    processes: [...state.processes],
    backends: [...state.backends],
    taps: [...state.taps],
    foreignTap: state.foreignTap,
    neighbours: [...state.neighbours],
    policy: { usable: true, intact: true, entry: state.policy },
    folder: state.folder,
    guest: state.guest,
    shutdowns: [...state.shutdowns],
  };
}

function patchVm(state: ModelState, changes: Partial<DesiredVm>): void {
  if (state.vm === undefined) throw new Error("a step for a row that does not exist");
  state.vm = { ...state.vm, ...changes };
}

function endProcess(state: ModelState, process: HypervisorProcess): void {
  state.processes = state.processes.filter((other) => other.pid !== process.pid);
}

/** Carries a step out, as the real executors would; throws for a step that could not be right. */
export function executeOnModel(state: ModelState, step: Step): void {
  switch (step.kind) {
    case "bring_bridge_up":
      if (state.bridge !== "down") throw new Error("the bridge is not down");
      state.bridge = "up";
      return;
    case "put_policy":
      state.policy = asSeen(step.policy);
      return;
    case "remove_policy":
      if (state.taps.length > 0) throw new Error("a tap was let go of before it was gone");
      state.policy = undefined;
      return;
    case "create_tap":
      if (step.guarded === true && (state.policy === undefined || state.policy === "damaged")) {
        throw new Error("a tap came before its policy");
      }
      if (state.bridge !== "up") throw new Error("no bridge to join");
      if (state.foreignTap || state.taps.some(({ name }) => name === step.name)) throw new Error("the name is taken");
      state.taps.push({
        index: state.nextId++,
        name: step.name,
        up: true,
        attached: true,
        usable: true,
        guarded: step.guarded === true,
        owner: step.uid,
      });
      return;
    case "repair_tap":
      state.taps = state.taps.map((tap) =>
        tap.index === step.tap.index ? { ...tap, up: true, attached: true, guarded: step.guarded === true } : tap,
      );
      return;
    case "delete_tap":
      if (state.processes.length > 0) throw new Error("a tap was taken from under a hypervisor");
      state.taps = state.taps.filter(({ index }) => index !== step.tap.index);
      return;
    case "set_neighbour":
      state.neighbours = [
        ...state.neighbours.filter(({ address }) => address !== step.address),
        { address: step.address, mac: step.mac },
      ];
      return;
    case "delete_neighbour":
      state.neighbours = state.neighbours.filter(({ address }) => address !== step.address);
      return;
    case "launch":
      if (state.processes.length > 0) throw new Error("a double start");
      state.processes.push({
        vmId: 1,
        generation: step.generation,
        pid: state.nextId++,
        startTicks: BigInt(state.nextId),
      });
      state.backends.push({ vmId: 1, generation: step.generation, pid: state.nextId++, startTicks: 1n });
      state.folder = true;
      return;
    case "record_started":
      patchVm(state, { startedGeneration: step.generation });
      return;
    case "attach_guest":
      state.guest = {
        generation: step.generation,
        attached: true,
        configured: false,
        workload: "waiting_for_config",
        health: "unknown",
        trouble: undefined,
      };
      return;
    case "configure_guest":
      if (state.guest === undefined) throw new Error("no guest to configure");
      state.guest = { ...state.guest, configured: true, workload: "running", health: "healthy" };
      return;
    case "detach_guest":
      state.guest = undefined;
      return;
    case "record_running":
      patchVm(state, { runningGeneration: step.generation });
      return;
    case "ask_shutdown":
      if (state.obedient) endProcess(state, step.process);
      else state.shutdowns.push({ ...step.process, askedAtMs: state.nowMs });
      return;
    case "press_power_button":
      state.shutdowns = state.shutdowns.filter(({ pid }) => pid !== step.process.pid);
      state.shutdowns.push({ ...step.process, askedAtMs: state.nowMs, buttonAtMs: state.nowMs });
      return;
    case "kill":
      endProcess(state, step.process);
      return;
    case "end_backend":
      if (state.processes.some(({ generation }) => generation === step.process.generation)) {
        throw new Error("a vsock device was taken from under a hypervisor");
      }
      state.backends = state.backends.filter(({ pid }) => pid !== step.process.pid);
      return;
    case "record_end":
      patchVm(state, { endedGeneration: step.generation });
      state.endedStatus = "crashed";
      return;
    case "record_stopped":
      patchVm(state, { endedGeneration: step.generation });
      state.endedStatus = "stopped";
      return;
    case "record_hang":
      patchVm(state, { endedGeneration: step.generation });
      state.endedStatus = "crashed";
      return;
    case "schedule_restart":
      patchVm(state, { restart: { dueAtMs: state.nowMs + 1000 } });
      return;
    case "restart":
      if (state.vm?.generation !== step.generation) throw new Error("a restart of another generation");
      if (state.processes.length > 0) throw new Error("a restart beside a hypervisor");
      patchVm(state, { generation: step.generation + 1, restart: undefined });
      return;
    case "forget_failures":
      patchVm(state, { steadyAtMs: undefined });
      return;
    case "remove_folder":
      if (state.processes.length > 0) throw new Error("a folder was taken from under a hypervisor");
      state.folder = false;
      return;
    case "delete_row":
      state.vm = undefined;
      return;
  }
}
