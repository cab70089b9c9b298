/** Whether what all VMs share is there. Pure. */
import type { ObservedNetwork } from "./observed.ts";

/** Whether something that set-up made is gone: the bridge, its being up, or the host's address on it; or a LAN bridge; or a further bridge; or a rule. */
export function needsRestore(network: ObservedNetwork): boolean {
  if (!network.managed) return false;
  if (network.bridge === "missing" || network.bridge === "down" || !network.addressed) return true;
  return network.lanGone === true || network.furtherBroken === true || network.setupDamaged === true;
}
