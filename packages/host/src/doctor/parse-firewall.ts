/** From what iptables and nft print to what the checks look at. No I/O. */
import type { Ipv4Block } from "../ipv4.ts";
import type { SeenFirewall } from "./view.ts";
import { findDrop, rulesByChain } from "./walk-forward.ts";

/** What `iptables -S` tells of the filter table. */
export type FilterTable = Pick<SeenFirewall, "forwardPolicy" | "droppedBy"> & {
  readonly chains: readonly string[];
};

/** Parses `iptables -S` (iptables(8)): `-P` a policy, `-N` a chain of somebody's, `-A` a rule, in order. */
export function parseFilterTable(
  text: string,
  guests: { readonly bridge: string; readonly block: Ipv4Block },
): FilterTable {
  const lines = text.split("\n");
  const rules = rulesByChain(text);
  return {
    forwardPolicy: lines.includes("-P FORWARD DROP") ? "DROP" : "ACCEPT",
    droppedBy: findDrop(rules, { ...guests, way: "from" }) ?? findDrop(rules, { ...guests, way: "to" }),
    chains: lines.flatMap((line) => /^-N (\S+)$/.exec(line)?.[1] ?? []),
  };
}

/** Firewall managers by what they leave in the kernel: firewalld's table or chains, ufw's chains. */
export function findFrontends(tables: readonly string[], chains: readonly string[]): SeenFirewall["frontends"] {
  const firewalld =
    tables.includes("firewalld") || chains.some((name) => /^FORWARD_(?:direct|IN_ZONES|POLICIES)/.test(name));
  const ufw = chains.some((name) => name.startsWith("ufw-"));
  return [...(firewalld ? (["firewalld"] as const) : []), ...(ufw ? (["ufw"] as const) : [])];
}
