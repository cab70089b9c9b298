/** Which action each state of a VM allows: one table for the engine and whoever shows buttons. */
import { VolantError, type VmStatus } from "@volant/contract";

export type VmAction = "start" | "stop" | "restart" | "delete" | "configure";
export type Desired = "running" | "stopped" | "absent";

/** What a user sees of a VM, with the two ways in which it may be on its way down. */
export type VmCondition = VmStatus | "stopping" | "deleting";

const all = { start: true, stop: true, restart: true, delete: true, configure: true } as const;

/** `false` is refused with `wrong_state`. Stopping what is stopped and deleting what is being deleted change nothing, and are allowed. */
export const ALLOWED_ACTIONS: Readonly<Record<VmCondition, Readonly<Record<VmAction, boolean>>>> = {
  pending: { ...all, start: false },
  starting: { ...all, start: false },
  running: { ...all, start: false },
  stopped: all,
  crashed: all,
  stopping: all,
  deleting: { start: false, stop: false, restart: false, delete: true, configure: false },
};

export function conditionOf(vm: { readonly desired: Desired; readonly status: VmStatus }): VmCondition {
  if (vm.desired === "absent") return "deleting";
  return vm.desired === "stopped" && vm.status !== "stopped" ? "stopping" : vm.status;
}

/** Whether a VM's last start has ended, and everybody was told how: what is started again before that would have ended without a word. */
export function hasEnded(vm: {
  readonly generation: number;
  readonly endedGeneration: number;
  readonly status: VmStatus;
}): boolean {
  return vm.endedGeneration === vm.generation && (vm.status === "crashed" || vm.status === "stopped");
}

/** @throws VolantError `wrong_state` with a sentence when the VM's state does not allow the action */
export function checkAction(
  action: VmAction,
  vm: { readonly name: string; readonly desired: Desired; readonly status: VmStatus },
): void {
  const condition = conditionOf(vm);
  if (ALLOWED_ACTIONS[condition][action]) return;
  const now = condition === "deleting" ? "being deleted" : condition;
  const message = `VM "${vm.name}" can't be ${PAST[action]}: it is ${now} already`;
  throw new VolantError(
    "wrong_state",
    message,
    condition === "deleting" ? {} : { hint: `volar vms restart ${vm.name}` },
  );
}

const PAST: Readonly<Record<VmAction, string>> = {
  start: "started",
  stop: "stopped",
  restart: "restarted",
  delete: "deleted",
  configure: "configured",
};
