/** The firewall rules that the managed network needs. No I/O. */
import type { FirewallRule } from "./operation.ts";
import { ruleComment } from "./settings.ts";
import type { SetupSettings } from "./settings.ts";

/**
 * Masquerade for the subnet leaving by any other interface, and leave to forward in and out of the bridge, each with a comment that
 * marks it as ours. In the order in which they are put in place.
 */
export function managedRules(settings: Pick<SetupSettings, "bridge" | "subnet">): FirewallRule[] {
  const mark = ["-m", "comment", "--comment", ruleComment(settings.bridge)];
  return [
    {
      table: "nat",
      chain: "POSTROUTING",
      match: ["-s", settings.subnet, "!", "-o", settings.bridge, ...mark, "-j", "MASQUERADE"],
    },
    { table: "filter", chain: "FORWARD", match: ["-i", settings.bridge, ...mark, "-j", "ACCEPT"] },
    { table: "filter", chain: "FORWARD", match: ["-o", settings.bridge, ...mark, "-j", "ACCEPT"] },
  ];
}
