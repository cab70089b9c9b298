/** Whether a VM that has ended is started again by itself: what the user says of it, else its manifest. Pure. */
import type { RestartPolicy } from "@volant/contract";
import { latestSpec } from "./vm-config.ts";
import type { VmSpec } from "./vm-spec.ts";

/** How a run of a VM ended. */
export interface VmEnd {
  readonly status: "stopped" | "crashed";
  /** A cause of an exit report, {@link LAUNCH_FAILED} or {@link HUNG}; absent in rows from before causes were kept. */
  readonly cause: string | undefined;
}

/** The hypervisor said no. */
export const LAUNCH_FAILED = "launch-failed";
/** The guest's agent stopped answering, and was given up. */
export const HUNG = "agent-silent";
/** The guest asked for a reset, of which nothing says that it was a panic's. */
const GUEST_RESET = "guest-reset";

/** The policy as last written: a change of it needs no start. */
export function restartPolicy(vm: { readonly spec: VmSpec; readonly next?: VmSpec | undefined }): RestartPolicy {
  const { config, manifest } = latestSpec(vm);
  return config.restart ?? manifest.restart ?? "no";
}

/**
 * Whether an end that no user asked for is followed by a start. `on-failure` leaves alone what the guest wanted itself: a power-off, or a reset, which ends a VM
 * as well.
 */
export function wantsRestart(policy: RestartPolicy, { status, cause }: VmEnd): boolean {
  if (policy === "always") return true;
  return policy === "on-failure" && status === "crashed" && cause !== GUEST_RESET;
}
