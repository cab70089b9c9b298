/** Whether what all VMs share is there. Pure. */
import type { ObservedNetwork } from "./observed.ts";

/** Whether something that set-up made is gone: the bridge, its being up, or the host's address on it. */
export function needsRestore(network: ObservedNetwork): boolean {
  return network.managed && (network.bridge === "missing" || network.bridge === "down" || !network.addressed);
}
