/** The firewall's rules as one nftables table of ours: its text, and whether what nft shows is it. No I/O. */
import { isDeepStrictEqual } from "node:util";
import { parseCidr, formatIpv4 } from "../ipv4.ts";
import { ruleComment } from "./settings.ts";
import type { SetupSettings } from "./settings.ts";

export interface NftRule {
  readonly chain: "postrouting" | "forward" | "prerouting";
  /** As nft(8) reads it, without its comment. */
  readonly text: string;
  /** The same as nft prints it in JSON (libnftables-json(5)). */
  readonly expression: readonly unknown[];
}

/** A table of family `ip`. */
export interface NftTable {
  readonly name: string;
  /** Marks each of its rules as ours. */
  readonly comment: string;
  readonly rules: readonly NftRule[];
}

/** One table for each managed bridge, so that two set-ups of one host don't meet. */
export function nftTableName(bridge: string): string {
  return `volant-${bridge}`;
}

function isLink(key: "iifname" | "oifname", op: "==" | "!=", link: string): unknown {
  return { match: { op, left: { meta: { key } }, right: link } };
}

/**
 * What the managed network needs, as iptables' rules say it: masquerade, and leave to forward in and out of the bridge; the first three rules
 * in this order. A LAN's frames pass this firewall where br_netfilter is on.
 *
 * @param lanBridges bridges whose guests may talk to their own segment
 */
export function managedTable(
  settings: Pick<SetupSettings, "bridge" | "subnet">,
  lanBridges: readonly string[],
): NftTable {
  const { bridge, subnet } = settings;
  const cidr = parseCidr(subnet);
  const prefix = { addr: formatIpv4(cidr?.address ?? 0), len: cidr?.prefixLength ?? 0 };
  const accept = { accept: null };
  return {
    name: nftTableName(bridge),
    comment: ruleComment(bridge),
    rules: [
      {
        chain: "postrouting",
        text: `ip saddr ${subnet} oifname != "${bridge}" masquerade`,
        expression: [
          { match: { op: "==", left: { payload: { protocol: "ip", field: "saddr" } }, right: { prefix } } },
          isLink("oifname", "!=", bridge),
          { masquerade: null },
        ],
      },
      { chain: "forward", text: `iifname "${bridge}" accept`, expression: [isLink("iifname", "==", bridge), accept] },
      { chain: "forward", text: `oifname "${bridge}" accept`, expression: [isLink("oifname", "==", bridge), accept] },
      ...lanBridges.map((lan): NftRule => {
        const expression = [isLink("iifname", "==", lan), isLink("oifname", "==", lan), accept];
        return { chain: "forward", text: `iifname "${lan}" oifname "${lan}" accept`, expression };
      }),
    ],
  };
}

/** Hooks and priorities by their numbers: the names for them are newer than some nft that is in use (nft(8)). */
const CHAINS: Readonly<Record<NftRule["chain"], string>> = {
  postrouting: "type nat hook postrouting priority 100; policy accept;",
  forward: "type filter hook forward priority 0; policy accept;",
  // Before connections are tracked, at -200.
  prerouting: "type filter hook prerouting priority -300; policy accept;",
};

/** The chains that these rules need. */
function neededChains(rules: readonly NftRule[]): NftRule["chain"][] {
  const further = rules.some(({ chain }) => chain === "prerouting");
  return further ? ["postrouting", "forward", "prerouting"] : ["postrouting", "forward"];
}

/** What `nft -f -` reads: one transaction that makes the table, or puts its chains right. Chains of others in it stay. */
export function tableScript({ name, comment, rules }: NftTable): string {
  const chains = neededChains(rules);
  return [
    `add table ip ${name}`,
    ...chains.map((chain) => `add chain ip ${name} ${chain} { ${CHAINS[chain]} }`),
    ...chains.map((chain) => `flush chain ip ${name} ${chain}`),
    ...rules.map(({ chain, text }) => `add rule ip ${name} ${chain} ${text} comment "${comment}"`),
    "",
  ].join("\n");
}

/** What is there of a table of ours. */
export interface ObservedTable {
  /** For each wanted rule, in order, whether it is there. */
  readonly present: readonly boolean[];
  /** Nothing to do: its chains hold exactly the wanted rules, in order. */
  readonly complete: boolean;
  /** Somebody put something into it that bears no mark of ours. */
  readonly foreign: boolean;
  /** Handles of our rules, by chain. */
  readonly handles: readonly { readonly chain: string; readonly handle: number }[];
}

type Json = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Looks for the table in the `nftables` array of `nft -j list ruleset`. Undefined when it is not there. */
export function findTable(items: readonly unknown[], wanted: NftTable): ObservedTable | undefined {
  const needed: readonly string[] = neededChains(wanted.rules);
  let [there, foreign, chains] = [false, false, 0];
  const found: { chain: string; expr: unknown; handle: number }[] = [];
  for (const item of items) {
    const [kind = "", value] = isObject(item) ? (Object.entries(item)[0] ?? []) : [];
    if (!isObject(value) || value["family"] !== "ip") continue;
    if (kind === "table") there ||= value["name"] === wanted.name;
    if (value["table"] !== wanted.name) continue;
    if (kind === "chain") {
      if (!Object.hasOwn(CHAINS, String(value["name"]))) foreign = true;
      // Made by somebody without a hook, or with another policy, it does not do what ours does.
      else if (
        value["hook"] === value["name"] &&
        value["policy"] === "accept" &&
        needed.includes(String(value["name"]))
      )
        chains += 1;
    } else if (kind === "rule" && value["comment"] === wanted.comment) {
      found.push({ chain: String(value["chain"]), expr: value["expr"], handle: Number(value["handle"]) });
    } else foreign = true;
  }
  if (!there) return undefined;
  const same = (rule: NftRule, other: (typeof found)[number] | undefined): boolean =>
    other?.chain === rule.chain && isDeepStrictEqual(other.expr, rule.expression);
  // What is in a chain that is not needed any more is about a bridge that is gone.
  const inOrder = needed.flatMap((chain) => found.filter((rule) => rule.chain === chain));
  const inWantedOrder = needed.flatMap((chain) => wanted.rules.filter((rule) => rule.chain === chain));
  return {
    present: wanted.rules.map((rule) => found.some((other) => same(rule, other))),
    complete:
      !foreign &&
      chains === needed.length &&
      inOrder.length === wanted.rules.length &&
      inWantedOrder.every((rule, index) => same(rule, inOrder[index])),
    foreign,
    handles: found.map(({ chain, handle }) => ({ chain, handle })),
  };
}
