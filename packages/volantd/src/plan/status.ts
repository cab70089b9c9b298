/** What a user sees of a VM, worked out from the same two things as the plan. */
import type { VmStatus } from "@volant/contract";
import type { DesiredVm, ObservedVm } from "./observed.ts";
import { overdueText } from "./overdue.ts";
import { isSilent } from "./silence.ts";

/** Shown while an agent that has answered before does not. */
export const SILENT = "the guest's agent does not answer";
/** The same, where its hypervisor was told to let it stand still. */
const PAUSED = "it is paused";

export interface StatusView {
  readonly status: VmStatus;
  readonly reason: string | undefined;
}

export interface StatusInput {
  readonly vm: DesiredVm;
  readonly observed: ObservedVm;
  /** What was shown last. */
  readonly shown: VmStatus;
  /** How the last generation ended, where it did. */
  readonly ended: StatusView | undefined;
  /** Why the plan can't go on: a step that failed, or a plan that is blocked. */
  readonly trouble: string | undefined;
  /** How long a start may take, where this one has taken longer. */
  readonly passedLimitMs?: number | undefined;
}

/** What a started guest is waiting for. */
function waitingFor(vm: DesiredVm, observed: ObservedVm): string {
  const { guest } = observed;
  if (guest === undefined || guest.generation !== vm.generation || !guest.attached) return "waiting_for_agent";
  if (!guest.configured) return "configuring";
  if (vm.needsLease && guest.lease?.address === undefined) return "waiting_for_lease";
  if (guest.workload === "exited" || guest.workload === "failed") return guest.trouble ?? `workload_${guest.workload}`;
  if (guest.workload !== "running") return "waiting_for_workload";
  return "waiting_for_health";
}

/** Whether the guest says that it has no address (any more). One that has not spoken yet, since volantd began to listen, may have one. */
function hasLostLease(vm: DesiredVm, { guest }: ObservedVm): boolean {
  if (!vm.needsLease || guest?.generation !== vm.generation || !guest.attached) return false;
  return guest.lease !== undefined && guest.lease.address === undefined;
}

/** What a running VM lacks of what made it running. */
function unwellReason(vm: DesiredVm, observed: ObservedVm): string | undefined {
  if (hasLostLease(vm, observed)) return "waiting_for_lease";
  const { guest } = observed;
  if (guest?.generation !== vm.generation || !guest.attached || !guest.configured) return undefined;
  // What it says of its network may be of a mode in which it is without one for a while.
  const isWorkloadsOwn = guest.workload === "exited" || guest.workload === "failed" || guest.health === "unhealthy";
  return isWorkloadsOwn ? guest.trouble : undefined;
}

/** The state of a VM and the reason for it. */
export function vmStatus({ vm, observed, shown, ended, trouble, passedLimitMs }: StatusInput): StatusView {
  if (vm.desired === "absent") {
    return { status: shown, reason: trouble === undefined ? "deleting" : `deleting: ${trouble}` };
  }
  if (vm.endedGeneration === vm.generation) {
    const end = vm.desired === "stopped" || ended === undefined ? STOPPED : ended;
    return trouble === undefined ? end : { status: end.status, reason: trouble };
  }
  if (vm.desired === "stopped") {
    return { status: shown, reason: trouble === undefined ? "stopping" : `stopping: ${trouble}` };
  }
  const own = observed.processes.some(({ generation }) => generation === vm.generation);
  // It has gone, and its end is about to be written down: what it is now is known then.
  if (!own && vm.startedGeneration === vm.generation) return { status: shown, reason: trouble };
  if (!own) {
    const reason = observed.processes.length > 0 ? "restarting" : undefined;
    return { status: "pending", reason: trouble ?? reason };
  }
  const { guest } = observed;
  const refusal = guest?.generation === vm.generation ? guest.refusal : undefined;
  const why = guest?.isPaused === true ? PAUSED : (refusal ?? SILENT);
  const silent = isSilent(guest, vm.generation, observed.nowMs) ? why : undefined;
  if (vm.runningGeneration === vm.generation) {
    return { status: "running", reason: trouble ?? silent ?? unwellReason(vm, observed) };
  }
  if (silent !== undefined) return { status: "starting", reason: trouble ?? silent };
  const waitsFor = waitingFor(vm, observed);
  const late = passedLimitMs === undefined ? waitsFor : overdueText(waitsFor, observed, passedLimitMs);
  return { status: "starting", reason: trouble ?? refusal ?? late };
}

const STOPPED: StatusView = { status: "stopped", reason: undefined };
