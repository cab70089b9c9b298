import type { DesiredVm, ObservedVm } from "./observed.ts";

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
