/** Who a VM's hypervisor runs as. */
import { VolantError } from "@volant/contract";

/**
 * The range 1879048192…2147483647 is "Unused" in systemd's table of user ids (https://systemd.io/UIDS-GIDS/), above its container ranges and below 2^31,
 * where some programs take ids for negative; Debian's policy (section 9.2.2) leaves 65536…4294967293 to be handed out at run time and by
 * default does not do so. Newer systemd takes 2147352576 and up for foreign file systems, so the top is left free.
 */
const FIRST_UID = 1_900_000_000;
const MAX_VM_ID = 247_000_000;

/**
 * The user and group id of a VM's hypervisor; both are the same number, and no other VM's.
 *
 * @throws VolantError `exhausted` when the VM's id is beyond the range
 */
export function vmIdentity(vmId: number): { readonly uid: number; readonly gid: number } {
  if (!Number.isSafeInteger(vmId) || vmId < 1) throw new Error(`${vmId} is no VM id`);
  if (vmId > MAX_VM_ID) throw new VolantError("exhausted", "this installation has no user ids left for new VMs");
  return { uid: FIRST_UID + vmId, gid: FIRST_UID + vmId };
}
