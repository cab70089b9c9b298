/** The firewall that was asked for, whichever it is. */
import type { FirewallRequest } from "../setup/host-port.ts";
import type { ObservedFirewall } from "../setup/observed.ts";
import { observeIptables } from "./iptables.ts";
import { observeNftables } from "./nftables.ts";

/** Looks at the rules, and creates nothing by it. `everything`: see {@link observeIptables}. */
export async function observeFirewall(request: FirewallRequest, everything: boolean): Promise<ObservedFirewall> {
  return request.kind === "iptables"
    ? await observeIptables(request.rules, request.bridge, everything)
    : await observeNftables(request.table, request.bridge);
}
