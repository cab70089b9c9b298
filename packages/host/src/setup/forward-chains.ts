/** The base chains that decide on forwarded packets: from what nft prints to what becomes of a guest's. No I/O. */
import { shellWord } from "./operation.ts";

/** A base chain at the forward hook, in a table that is not the one that our rules are in. */
export interface ForwardChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly policy: "accept" | "drop";
  /** Its rules, in order, as far as they matter here. */
  readonly rules: readonly {
    /** No match but such as name the bridge: every packet of guests that comes this far. */
    readonly always: boolean;
    /** A match names the bridge. */
    readonly namesBridge: boolean;
    readonly verdict: "accept" | "drop" | "jump" | "other";
  }[];
}

type Rule = ForwardChain["rules"][number];
type Json = Readonly<Record<string, unknown>>;

/** Parts of a rule that neither match nor end it (libnftables-json(5)). */
const TRANSPARENT = new Set(["counter", "log", "comment", "limit"]);
const VERDICTS: Readonly<Record<string, Rule["verdict"]>> = {
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

function parseRule(expressions: readonly unknown[], bridge: string): Rule {
  let [always, namesBridge] = [true, false];
  let verdict: Rule["verdict"] = "other";
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

export interface RulesetChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  /** Of a base chain. */
  readonly policy: string | undefined;
}

export interface Ruleset {
  readonly tables: readonly { readonly family: string; readonly name: string }[];
  readonly chains: readonly RulesetChain[];
  /** Base chains at the forward hook of IPv4. */
  readonly forward: readonly ForwardChain[];
}

/** Parses the `nftables` array of `nft -j list ruleset` (libnftables-json(5)). What it does not know it passes over. */
export function parseRuleset(items: readonly unknown[], bridge: string): Ruleset {
  const tables: Ruleset["tables"][number][] = [];
  const chains: RulesetChain[] = [];
  const forward: (Omit<ForwardChain, "rules"> & { rules: Rule[] })[] = [];
  for (const item of items) {
    if (!isObject(item)) continue;
    const { table, chain, rule } = item;
    if (isObject(table)) tables.push({ family: String(table["family"]), name: String(table["name"]) });
    if (isObject(chain)) {
      const [family, home, name] = [chain["family"], chain["table"], chain["name"]].map(String) as [
        string,
        string,
        string,
      ];
      const policy = typeof chain["policy"] === "string" ? chain["policy"] : undefined;
      chains.push({ family, table: home, name, policy });
      if (chain["hook"] === "forward" && ["ip", "inet"].includes(family)) {
        forward.push({ family, table: home, name, policy: policy === "drop" ? "drop" : "accept", rules: [] });
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

/** The FORWARD chain as `iptables -S FORWARD` prints it: the legacy iptables' own, which nft can't see. */
export function parseIptablesForward(text: string, bridge: string): ForwardChain {
  const lines = text.split("\n").filter((line) => line.startsWith("-A FORWARD "));
  const verdicts: Readonly<Record<string, Rule["verdict"]>> = { ACCEPT: "accept", DROP: "drop", REJECT: "drop" };
  return {
    family: "ip",
    table: "filter",
    name: "FORWARD",
    policy: /^-P FORWARD DROP$/m.test(text) ? "drop" : "accept",
    rules: lines.map((line): Rule => {
      const target = /\s-[jg] (\S+)/.exec(line)?.[1] ?? "";
      const bridges = [...line.matchAll(/(! )?-[io] (\S+)/g)];
      const namesBridge = bridges.some(([, not, name]) => not === undefined && name === bridge);
      const always = /^-A FORWARD -[jg] \S+/.test(line);
      return { always, namesBridge, verdict: verdicts[target] ?? (target === "" ? "other" : "jump") };
    }),
  };
}

/** iptables' own forward chain, which its rules are put into. */
export function isIptablesForward({ family, table, name }: Omit<ForwardChain, "rules" | "policy">): boolean {
  return family === "ip" && table === "filter" && name === "FORWARD";
}

export type ChainJudgement = "passes" | "drops" | "may_drop";

/**
 * What a chain does with a new connection of a guest. An accept ends one table only, so each table's chain has to let a packet through. Where
 * a rule jumps, or names the bridge, it is not followed: the verdict is then no more than a suspicion, or none.
 */
export function judgeChain({ rules, policy }: ForwardChain): ChainJudgement {
  let jumped = false;
  for (const { always, namesBridge, verdict } of rules) {
    if ((always || namesBridge) && verdict === "accept") return "passes";
    if (always && verdict === "drop") return jumped ? "may_drop" : "drops";
    if (verdict === "jump") jumped = true;
  }
  if (policy === "accept") return "passes";
  return jumped ? "may_drop" : "drops";
}

/** A chain that keeps guests' packets from passing. */
export interface ForwardObstacle {
  readonly certain: boolean;
  readonly sentence: string;
  /** For a root shell: has the chain accept what comes from the bridge and goes there. */
  readonly fix: string;
}

/** The chains that drop what guests send or get, each with the command that opens it. */
export function findObstacles(chains: readonly ForwardChain[], bridge: string): ForwardObstacle[] {
  return chains.flatMap((chain): ForwardObstacle[] => {
    const judgement = judgeChain(chain);
    if (judgement === "passes") return [];
    const place = `the chain ${chain.name} of table ${chain.family} ${chain.table}`;
    const insert = (direction: "i" | "o"): string => {
      const words = isIptablesForward(chain)
        ? ["iptables", "-w", "-I", "FORWARD", "1", `-${direction}`, bridge, "-j", "ACCEPT"]
        : ["nft", "insert", "rule", chain.family, chain.table, chain.name, `${direction}ifname`, bridge, "accept"];
      return words.map(shellWord).join(" ");
    };
    const sentence =
      judgement === "drops"
        ? `${place} drops what guests send or get, whatever other tables accept`
        : `${place} drops what none of its other chains accepts, and no rule of it names ${bridge}`;
    return [{ certain: judgement === "drops", sentence, fix: `${insert("i")} && ${insert("o")}` }];
  });
}
