/** From what iptables and nft print to what the checks look at. No I/O. */
import { ruleComment } from "../setup/settings.ts";
import type { ForwardChain, SeenFirewall } from "./view.ts";

/** What `iptables -S` tells of the filter table. */
export type FilterTable = Pick<SeenFirewall, "forwardPolicy" | "dropBeforeOurs"> & {
  readonly chains: readonly string[];
};

/** Parses `iptables -S` (iptables(8)): `-P` a policy, `-N` a chain of somebody's, `-A` a rule, in order. */
export function parseFilterTable(text: string, bridge: string): FilterTable {
  const lines = text.split("\n");
  const rules = lines.filter((line) => line.startsWith("-A FORWARD "));
  const ours = rules.findIndex((line) => line.includes(ruleComment(bridge)));
  const before = ours === -1 ? rules : rules.slice(0, ours);
  return {
    forwardPolicy: lines.includes("-P FORWARD DROP") ? "DROP" : "ACCEPT",
    dropBeforeOurs: before.some((line) => /^-A FORWARD -j (?:DROP|REJECT)\b/.test(line)),
    chains: lines.flatMap((line) => /^-N (\S+)$/.exec(line)?.[1] ?? []),
  };
}

type Json = Readonly<Record<string, unknown>>;

/** Parts of a rule that neither match nor end it (libnftables-json(5)). */
const TRANSPARENT = new Set(["counter", "log", "comment", "limit"]);
const VERDICTS: Readonly<Record<string, ForwardChain["rules"][number]["verdict"]>> = {
  accept: "accept",
  drop: "drop",
  reject: "drop",
  jump: "jump",
  goto: "jump",
  // A map of verdicts, as nft's own examples use for dispatch.
  vmap: "jump",
};

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a match is about packets from or to the bridge. */
function matchesBridge(match: unknown, bridge: string): boolean {
  if (!isObject(match) || !["==", "in"].includes(String(match["op"]))) return false;
  const { left, right } = match;
  const meta = isObject(left) ? left["meta"] : undefined;
  if (!isObject(meta) || !["iifname", "oifname", "iif", "oif"].includes(String(meta["key"]))) return false;
  const members = isObject(right) ? right["set"] : right;
  return Array.isArray(members) ? members.includes(bridge) : members === bridge;
}

function parseRule(expressions: readonly unknown[], bridge: string): ForwardChain["rules"][number] {
  let [always, namesBridge] = [true, false];
  let verdict: ForwardChain["rules"][number]["verdict"] = "other";
  for (const expression of expressions) {
    const [key = "", value] = isObject(expression) ? (Object.entries(expression)[0] ?? []) : [];
    const found = VERDICTS[key];
    if (found !== undefined) verdict = found;
    else if (key === "match" && matchesBridge(value, bridge)) namesBridge = true;
    else if (!TRANSPARENT.has(key)) always = false;
    // A limit lets some packets pass it by.
    if (key === "limit") always = false;
  }
  return { always, namesBridge, verdict };
}

export interface Ruleset {
  readonly tables: readonly string[];
  readonly chains: readonly string[];
  /** Base chains at the forward hook of IPv4. */
  readonly forward: readonly ForwardChain[];
}

/** Parses the `nftables` array of `nft -j list ruleset` (libnftables-json(5)). What it does not know it passes over. */
export function parseRuleset(items: readonly unknown[], bridge: string): Ruleset {
  const tables: string[] = [];
  const chains: string[] = [];
  const forward: (Omit<ForwardChain, "rules"> & { rules: ForwardChain["rules"][number][] })[] = [];
  for (const item of items) {
    if (!isObject(item)) continue;
    const { table, chain, rule } = item;
    if (isObject(table)) tables.push(String(table["name"]));
    if (isObject(chain)) {
      chains.push(String(chain["name"]));
      if (chain["hook"] === "forward" && ["ip", "inet"].includes(String(chain["family"]))) {
        forward.push({
          family: String(chain["family"]),
          table: String(chain["table"]),
          name: String(chain["name"]),
          policy: chain["policy"] === "drop" ? "drop" : "accept",
          rules: [],
        });
      }
    }
    if (isObject(rule)) {
      const home = forward.find(
        ({ family, table: name, name: chainName }) =>
          family === rule["family"] && name === rule["table"] && chainName === rule["chain"],
      );
      const { expr } = rule;
      if (home !== undefined && Array.isArray(expr)) home.rules.push(parseRule(expr, bridge));
    }
  }
  return { tables, chains, forward };
}

/** Firewall managers by what they leave in the kernel: firewalld's table or chains, ufw's chains. */
export function findFrontends(tables: readonly string[], chains: readonly string[]): SeenFirewall["frontends"] {
  const firewalld =
    tables.includes("firewalld") || chains.some((name) => /^FORWARD_(?:direct|IN_ZONES|POLICIES)/.test(name));
  const ufw = chains.some((name) => name.startsWith("ufw-"));
  return [...(firewalld ? (["firewalld"] as const) : []), ...(ufw ? (["ufw"] as const) : [])];
}
