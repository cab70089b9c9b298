/** How data (exec, forward, the proxy) reaches guests. No I/O. */
import { shellWord } from "../setup/operation.ts";
import { ok, skipped, type Verdict, warning } from "./finding.ts";
import type { DoctorView } from "./view.ts";

/** The version that Volant is tested with. */
const INSTALL = "cargo install --locked --version 0.3.0 --root /usr/local vhost-device-vsock";

export function checkTransport({ volantd }: DoctorView): Verdict[] {
  if (!volantd.answers) return [skipped(`only volantd knows how data reaches guests: ${volantd.reason}`)];
  const { transport, withoutVsock = [] } = volantd;
  if (transport === undefined) return [skipped("this volantd does not say how data reaches guests")];
  const { data, wanted, reason = "it gives no reason" } = transport;
  if (wanted === "off")
    return [ok("data reaches guests over virtio-serial, which needs nothing (VOLANT_VSOCK is off)")];
  if (data === "virtio-serial") {
    return [warning(`data reaches guests over virtio-serial and not over vsock: ${reason}`, INSTALL)];
  }
  const verdicts = withoutVsock.map(({ name, reason: why }) =>
    warning(
      `data of VM ${name} goes over virtio-serial and not over vsock: ${why}`,
      `volar vms restart ${shellWord(name)}`,
    ),
  );
  return verdicts.length > 0 ? verdicts : [ok("data reaches guests over vsock")];
}
