/** The firewall rules that the managed network needs. No I/O. */
import type { FirewallRule } from "./operation.ts";
import { ruleComment } from "./settings.ts";
import type { SetupSettings } from "./settings.ts";

/**
 * Masquerade for the subnet leaving by any other interface, and leave to forward in and out of the bridge, each with a comment that
 * marks it as ours; the first three in this order. In the order in which they are put in place. A LAN's frames pass this firewall
 * where br_netfilter is on.
 *
 * @param lanBridges bridges whose guests may talk to their own segment
 */
export function managedRules(
  settings: Pick<SetupSettings, "bridge" | "subnet">,
  lanBridges: readonly string[] = [],
): FirewallRule[] {
  const mark = ["-m", "comment", "--comment", ruleComment(settings.bridge)];
  return [
    {
      table: "nat",
      chain: "POSTROUTING",
      match: ["-s", settings.subnet, "!", "-o", settings.bridge, ...mark, "-j", "MASQUERADE"],
    },
    { table: "filter", chain: "FORWARD", match: ["-i", settings.bridge, ...mark, "-j", "ACCEPT"] },
    { table: "filter", chain: "FORWARD", match: ["-o", settings.bridge, ...mark, "-j", "ACCEPT"] },
    ...lanBridges.map((lan): FirewallRule => {
      const own = ["-m", "comment", "--comment", ruleComment(lan)];
      return { table: "filter", chain: "FORWARD", match: ["-i", lan, "-o", lan, ...own, "-j", "ACCEPT"] };
    }),
  ];
}
