/** The tap that a hypervisor gets as a descriptor. netlink is loaded only when there is one to open: never off Linux. */
import { VolantError } from "@volant/contract";
import { messageOf } from "../../message-of.ts";

/**
 * A descriptor on a tap that is there already.
 *
 * @throws VolantError `not_ready` with the tap's name: it does not exist, is no tap, or somebody else has it open
 */
export async function openTapFor(vmName: string, tap: string): Promise<number> {
  try {
    const { openTap } = await import("@volant/netlink");
    return await openTap(tap);
  } catch (error) {
    const why = messageOf(error);
    throw new VolantError("not_ready", `the tap ${tap} of VM ${vmName} can't be opened: ${why}`, { cause: error });
  }
}

/** Closes what {@link openTapFor} gave. The tap stays. */
export async function closeTap(fd: number): Promise<void> {
  const { closeTap: close } = await import("@volant/netlink");
  await close(fd);
}
