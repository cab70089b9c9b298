/** The firewall's part of the plan: iptables' rules, or the table of nftables. No I/O. */
import { findObstacles } from "./forward-chains.ts";
import { furtherLinks, furtherRules, furtherTableRules } from "./further.ts";
import type { FirewallRequest } from "./host-port.ts";
import { managedTable } from "./nft-table.ts";
import type { ObservedFirewall, ObservedHost, ObservedNetwork } from "./observed.ts";
import { ruleKey } from "./operation.ts";
import type { FirewallRule } from "./operation.ts";
import type { Refusal, SetupAction } from "./plan.ts";
import type { Effect } from "./record.ts";
import { managedRules } from "./rules.ts";
import type { FirewallKind, SetupSettings } from "./settings.ts";

type Named = Pick<SetupSettings, "bridge" | "subnet">;

/** What to look at for these settings. */
export function firewallRequest(kind: FirewallKind, settings: Named, lanBridges: readonly string[]): FirewallRequest {
  const { bridge } = settings;
  return kind === "iptables"
    ? { kind, bridge, rules: managedRules(settings, lanBridges) }
    : { kind, bridge, table: managedTable(settings, lanBridges) };
}

/** The same with what further bridges need that are there: which those are shows only when the host's links are looked at. */
export function withFurther(request: FirewallRequest, network: ObservedNetwork | undefined): FirewallRequest {
  const names = furtherNamesOf(request.bridge, network);
  if (names.length === 0) return request;
  if (request.kind === "iptables") {
    return { ...request, rules: [...request.rules, ...furtherRules(request.bridge, names)] };
  }
  const { table } = request;
  return { ...request, table: { ...table, rules: [...table.rules, ...furtherTableRules(names)] } };
}

function furtherNamesOf(bridge: string, network: ObservedNetwork | undefined): string[] {
  return furtherLinks(network?.links ?? [], bridge).map(({ name }) => name);
}

const PROGRAMS = {
  iptables: { name: "iptables", hint: "apt-get install iptables, or use --firewall nftables" },
  nftables: { name: "nft", hint: "apt-get install nftables" },
} as const;

export function refuseFirewall(kind: FirewallKind, { firewall, root }: ObservedHost): Refusal[] {
  const { name, hint } = PROGRAMS[kind];
  if (!root) return [];
  if (firewall.state === "missing") {
    return [{ code: "not_ready", message: `there is no ${name} on this host`, hint }];
  }
  if (firewall.state === "unusable") {
    return [{ code: "not_ready", message: `${name} does not work on this host: ${firewall.reason}` }];
  }
  return [];
}

/** Chains of other tables that would drop what ours accepts: an accept ends one table only. */
export function firewallNotes(bridge: string, { firewall, root }: ObservedHost): string[] {
  if (firewall.state === "unusable" && !root) {
    return ["only root can see the firewall's rules: planned as if there were none"];
  }
  if (firewall.state !== "usable") return [];
  return findObstacles(firewall.otherChains ?? [], bridge).map(
    ({ sentence, fix }) => `${sentence}; to let them pass: ${fix}`,
  );
}

export function planFirewall(
  kind: FirewallKind,
  settings: Named,
  lanBridges: readonly string[],
  { firewall, network }: ObservedHost,
  ours: boolean,
): SetupAction[] {
  const wanted = withFurther(firewallRequest(kind, settings, lanBridges), network);
  if (wanted.kind === "iptables") {
    return wanted.rules.map((rule) => ({ ...planRule(settings, rule, firewall), ours }));
  }
  const { table } = wanted;
  const { name, comment } = table;
  const complete = firewall.state === "usable" && firewall.table?.complete === true;
  return [
    {
      title: `table ip ${name}: masquerade of ${settings.subnet}, forwarding from and to ${settings.bridge} accepted`,
      needed: !complete,
      operations: [{ kind: "write_nft_table", table }],
      effect: { kind: "nft_table", name, comment },
      ours: complete,
    },
  ];
}

function ruleTitle({ bridge, subnet }: Named, { table, match }: FirewallRule): string {
  if (table === "nat") return `masquerade of ${subnet} leaving by other links than ${bridge}`;
  const [direction, link, second] = match;
  if (table === "raw") return `connections within ${link} not tracked`;
  if (second === "-o") return `forwarding within ${link} accepted`;
  return `forwarding ${direction === "-i" ? "from" : "to"} ${bridge} accepted`;
}

function planRule(settings: Named, rule: FirewallRule, firewall: ObservedFirewall): SetupAction {
  const usable = firewall.state === "usable" ? firewall : undefined;
  const containers = usable?.containers;
  const effect: Effect = {
    kind: "rule",
    rule: { ...rule, match: [...rule.match] },
    tableExisted: containers?.tables.includes(rule.table) ?? null,
    chainExisted: containers?.chains.some(({ table, name }) => table === rule.table && name === rule.chain) ?? null,
  };
  return {
    title: ruleTitle(settings, rule),
    needed: usable?.rules.includes(ruleKey(rule)) !== true,
    operations: [{ kind: "insert_rule", rule }],
    effect,
  };
}
