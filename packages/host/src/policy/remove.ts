/** Takes away what volantd made for all guests together, once no guest depends on it: for the undoing of a set-up. */
import { Netlink, NetlinkError } from "@volant/netlink";
import { VolantError } from "@volant/contract";
import { findProgram } from "../linux/programs.ts";
import { GuestPolicy } from "./guest-policy.ts";
import { TapGuard } from "./tap-guard.ts";

/** No installation's: it has no entries, and looks at nobody's. */
const NOBODY = "0000";

/**
 * Removes the table of rules and the guard's link, unless an entry or a tap of any installation is left. Absent already is no error.
 *
 * @throws VolantError `not_ready` when the kernel refuses
 */
export async function removeGuestPolicy(): Promise<void> {
  const nft = await findProgram("nft");
  if (nft !== undefined) await new GuestPolicy({ installation: NOBODY, nft }).removeTable();
  try {
    await using netlink = await Netlink.open();
    await new TapGuard(netlink).release();
  } catch (cause) {
    if (cause instanceof NetlinkError) throw new VolantError("not_ready", cause.message, { cause });
    throw cause;
  }
}
