/** What a guest may send, from all who have a say. Apart from the network: whoever chooses a mode chooses nothing of this. */
import type { Manifest, VmConfig } from "@volant/contract";

/**
 * Whether a guest is held to its address. The operator's word for the VM wins; else a manifest may tighten the operator's setting for
 * all, and never loosen it.
 *
 * @param setting the operator's, for all VMs of which nobody says anything
 */
export function resolveAntiSpoof(
  manifest: Pick<Manifest, "policy">,
  config: Pick<VmConfig, "policy">,
  setting: boolean,
): boolean {
  return config.policy?.anti_spoof ?? (setting || manifest.policy?.anti_spoof === true);
}
