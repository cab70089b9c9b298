/** The check of ports that VMs have published. No I/O. */
import { ok, skipped, type Verdict, warning } from "./finding.ts";
import type { DoctorView } from "./view.ts";

export function checkPublishedPorts({ volantd }: DoctorView): Verdict[] {
  if (!volantd.answers) return [skipped(`volantd can't be asked: ${volantd.reason}`)];
  // volantd has told of them itself where it is the one that asks.
  const verdicts = (volantd.deafPorts ?? []).map(({ vm, endpoint, reason }) =>
    warning(
      `port ${endpoint} of VM ${vm} is not listened on, and is tried again${reason === undefined ? "" : `: ${reason}`}`,
    ),
  );
  return verdicts.length > 0 ? verdicts : [ok("every published port is listened on")];
}
