/** Names of files in the log folder. Pure. */
import { VolantError } from "@volant/contract";

/** As far as they are before `.log`: what guests print on their consoles, which is named by the VM's id and not by its name. */
const CONSOLE_LOG = /^vm-\d+\.console(?:\.previous)?$/i;

/** Refuses the name of a VM whose log would be the file of another one's console. @throws VolantError `invalid` */
export function checkLogName(vmName: string): void {
  if (!CONSOLE_LOG.test(vmName)) return;
  throw new VolantError("invalid", `VM name "${vmName}" is not possible: its log would be the file of a VM's console`);
}
