/** What must change for the host to be as it was before set-up: decided from the record and from what is there now. No I/O. */
import { furtherLinks, parseFurtherAlias } from "./further.ts";
import type { ObservedHost, ObservedLink } from "./observed.ts";
import { FORWARDING, ruleKey } from "./operation.ts";
import type { FirewallRule, Operation } from "./operation.ts";
import { isOwnBridge, otherNamespace } from "./plan.ts";
import type { Refusal } from "./plan.ts";
import { effectKey, findEffect, isStale } from "./record.ts";
import type { Effect, SetupRecord } from "./record.ts";
import { foreignLanPorts, undoLan } from "./undo-lan.ts";

export interface UndoStep {
  /** What goes, in a few words. */
  readonly title: string;
  /** `undo` has operations; `gone` is so already; `kept` was changed by someone else since, and is left to them. */
  readonly outcome: "undo" | "gone" | "kept";
  /** Why it is kept. */
  readonly reason?: string;
  readonly operations: readonly Operation[];
  /** What the record must say before the operations begin, where that is more than that an undo is under way. */
  readonly intent?: Effect;
  /** The effect that the record need not tell of any more after this. */
  readonly key: string;
}

export interface UndoPlan {
  readonly steps: readonly UndoStep[];
  readonly refusals: readonly Refusal[];
}

type Outcome = Omit<UndoStep, "key">;

/** Compares what the record says that set-up did with what is there now; the last effect is undone first. */
export function planUndo(record: SetupRecord, observed: ObservedHost): UndoPlan {
  const refusals: Refusal[] = [];
  if (observed.recordedNamespaceAlive) refusals.push(otherNamespace(record));
  refusals.push(...refusePorts(record, observed));
  if (observed.network === undefined) {
    refusals.push({ code: "not_ready", message: "the host's links can't be listed, so nothing can be undone safely" });
  }
  const rules = record.effects.some(({ kind }) => kind === "rule" || kind === "nft_table");
  if (rules && observed.firewall.state !== "usable" && !isStale(record, observed.kernel)) {
    const { firewall } = observed;
    const program = record.settings.firewall === "nftables" ? "nft" : "iptables";
    const why = firewall.state === "missing" ? `there is no ${program} on this host any more` : firewall.reason;
    const hint = `apt-get install ${record.settings.firewall}`;
    refusals.push({ code: "not_ready", message: `the firewall's rules can't be removed: ${why}`, hint });
  }
  const steps = record.effects.toReversed().map((effect) => {
    return { ...undoEffect(effect, record, observed), key: effectKey(effect) };
  });
  return { steps: [...undoFurther(record, observed), ...steps], refusals };
}

/** Further bridges, which are of volantd's making and in no record: empty by now, and first, as they hang on the bridge. */
function undoFurther(record: SetupRecord, observed: ObservedHost): UndoStep[] {
  const links = observed.network?.links ?? [];
  const { bridge } = record.settings;
  const parts = [...furtherLinks(links, bridge, "trunk"), ...furtherLinks(links, bridge)];
  return [...Map.groupBy(parts, ({ alias }) => parseFurtherAlias(alias)?.number)].map(([number, own]) => {
    // A trunk's other end goes with the first.
    const operations = own.map(({ name }): Operation => ({ kind: "delete_link", link: name }));
    return { ...undo(`further bridge ${number} of ${bridge}`, operations), key: `further ${number}` };
  });
}

function findBridge(record: SetupRecord, observed: ObservedHost): ObservedLink | undefined {
  return observed.network?.links.find((link) => link.name === record.settings.bridge);
}

function refusePorts(record: SetupRecord, observed: ObservedHost): Refusal[] {
  const lans = foreignLanPorts(record, observed).map(({ bridge, ports }) => portsRefusal(bridge, ports));
  const links = observed.network?.links ?? [];
  const trunks = new Set(furtherLinks(links, record.settings.bridge, "trunk"));
  const portsOf = (bridge: ObservedLink) => links.filter((link) => link.master === bridge.index && !trunks.has(link));
  const further = furtherLinks(links, record.settings.bridge).map((bridge) => [bridge, portsOf(bridge)] as const);
  const bridge = findBridge(record, observed);
  const own = bridge !== undefined && isOwnBridge(bridge, record.settings, record);
  // An adopted bridge stays, and so may its other ports.
  const ports = (bridge === undefined ? [] : portsOf(bridge)).filter(
    ({ alias }) => own || alias?.startsWith("volant:") === true,
  );
  const all = bridge === undefined ? further : [[bridge, ports] as const, ...further];
  const taken = all.filter(([, links]) => links.length > 0);
  return [
    ...taken.map(([{ name }, links]) =>
      portsRefusal(
        name,
        links.map((port) => port.name),
      ),
    ),
    ...lans,
  ];
}

function portsRefusal(bridge: string, ports: readonly string[]): Refusal {
  const shown = ports.length > 5 ? `${ports.slice(0, 5).join(", ")} and ${ports.length - 5} more` : ports.join(", ");
  return {
    code: "in_use",
    message: `the bridge ${bridge} still has ${ports.length === 1 ? "the port" : "ports"} ${shown}`,
    hint: "delete the VMs first (volar vms list, volar vms delete), and take other ports off it",
  };
}

function undo(title: string, operations: readonly Operation[]): Outcome {
  return { title, outcome: "undo", operations };
}

function gone(title: string): Outcome {
  return { title, outcome: "gone", operations: [] };
}

function kept(title: string, reason: string): Outcome {
  return { title, outcome: "kept", reason, operations: [] };
}

function undoEffect(effect: Effect, record: SetupRecord, observed: ObservedHost): Outcome {
  const bridge = findBridge(record, observed);
  const adopted = findEffect(record, `adopted_bridge ${record.settings.bridge}`) !== undefined;
  switch (effect.kind) {
    case "bridge": {
      const title = `bridge ${effect.link}`;
      if (bridge === undefined) return gone(title);
      if (!isOwnBridge(bridge, record.settings, record)) return kept(title, "someone made another of that name since");
      return undo(title, [{ kind: "delete_link", link: effect.link }]);
    }
    case "adopted_bridge":
      return kept(`bridge ${effect.link}`, "someone else made it");
    case "up": {
      const title = `${effect.link} up`;
      // Deleting a bridge of ours takes this along, and a bridge of someone else's is theirs.
      if (!adopted || bridge?.up !== true) return gone(title);
      return undo(title, [{ kind: "set_up", link: effect.link, up: false }]);
    }
    case "address": {
      const { link, address, prefixLength } = effect;
      const title = `address ${address}/${prefixLength} on ${link}`;
      const present = observed.network?.addresses.some(
        (other) => other.link === link && other.address === address && other.prefixLength === prefixLength,
      );
      const ours = adopted || (bridge !== undefined && isOwnBridge(bridge, record.settings, record));
      if (present !== true) return gone(title);
      if (!ours) return kept(title, "it is on a bridge that someone else made since");
      return undo(title, [{ kind: "delete_address", link, address, prefixLength }]);
    }
    case "forwarding":
      return undoForwarding(effect, record, observed);
    case "lan_bridge":
    case "lan_card":
      return undoLan(effect, record, observed);
    case "nft_table":
      return undoTable(effect, observed);
    case "rule":
      return undoRule(effect, record, observed);
    case "file": {
      const { path, content, before } = effect;
      const title = `file ${path}`;
      const found = observed.service.unitText ?? null;
      if (found === before) return gone(title);
      if (found !== content) return kept(title, "it was changed since");
      const back: Operation =
        before === null ? { kind: "delete_file", path } : { kind: "write_file", path, content: before };
      return undo(title, observed.service.systemd ? [back, { kind: "systemd_reload" }] : [back]);
    }
    case "service": {
      const title = `${effect.unit} started at boot`;
      if (!observed.service.enabled) return gone(title);
      return undo(title, [{ kind: "systemctl", verb: "disable", unit: effect.unit }]);
    }
  }
}

/** Splits `net/ipv4/conf/<link>/<setting>`. */
function confParts(name: string): { readonly link: string; readonly setting: string } | undefined {
  const match = /^net\/ipv4\/conf\/([^/]+)\/([^/]+)$/.exec(name);
  return match === null ? undefined : { link: match[1] ?? "", setting: match[2] ?? "" };
}

function undoForwarding(effect: Effect & { kind: "forwarding" }, record: SetupRecord, observed: ObservedHost): Outcome {
  const title = "IPv4 forwarding";
  if (isStale(record, observed.kernel)) return gone(title);
  const restore = (values: Readonly<Record<string, string>>): Outcome => ({
    ...undo(title, [{ kind: "restore_forwarding", values }]),
    intent: { ...effect, restoring: { ...values } },
  });
  if (effect.restoring !== undefined) return restore(effect.restoring);
  if (observed.sysctls[FORWARDING] !== "1") return gone(title);
  if (effect.sysctls[FORWARDING]?.before === "1") return kept(title, "it was on before");
  return restore(forwardingTargets(effect.sysctls, observed.sysctls));
}

/**
 * What each setting must be once forwarding is off again. Turning it off resets some of them for every link (inet_forward_change in
 * net/ipv4/devinet.c), so each one of such a name is listed: with its old value where ours still stands, with today's where
 * someone changed it since, and for a link that came since, with the old default where it has the one that we brought about.
 */
export function forwardingTargets(
  recorded: Readonly<Record<string, { readonly before: string; readonly after?: string }>>,
  current: Readonly<Record<string, string>>,
): Record<string, string> {
  const settings = new Set(["forwarding", "accept_redirects"]);
  for (const [name, { before, after }] of Object.entries(recorded)) {
    const parts = confParts(name);
    if (parts !== undefined && after !== undefined && after !== before) settings.add(parts.setting);
  }
  const targets: Record<string, string> = {};
  for (const [name, value] of Object.entries(current)) {
    const parts = confParts(name);
    // Forwarding of all links is the switch itself.
    if (parts === undefined || !settings.has(parts.setting) || name === "net/ipv4/conf/all/forwarding") continue;
    const source = recorded[name] ?? recorded[`net/ipv4/conf/default/${parts.setting}`];
    const ours = source !== undefined && (source.after === undefined || source.after === value);
    targets[name] = ours ? source.before : value;
  }
  return targets;
}

function undoTable({ name, comment }: Effect & { kind: "nft_table" }, { firewall }: ObservedHost): Outcome {
  const title = `table ip ${name}`;
  if (firewall.state !== "usable" || firewall.table === undefined) return gone(title);
  const done = undo(title, [{ kind: "delete_nft_table", name, comment }]);
  return firewall.table.foreign
    ? { ...done, reason: "what someone else put into it stays, and the table with it" }
    : done;
}

function undoRule(effect: Effect & { kind: "rule" }, record: SetupRecord, { firewall }: ObservedHost): Outcome {
  const rule: FirewallRule = effect.rule;
  const title = `rule ${rule.match.join(" ")} in ${rule.chain}`;
  if (firewall.state !== "usable") return gone(title);
  const operations: Operation[] = [];
  if (firewall.rules.includes(ruleKey(rule))) operations.push({ kind: "delete_rule", rule });
  const chain = firewall.containers?.chains.find(({ table, name }) => table === rule.table && name === rule.chain);
  const first = record.effects.find(
    (other) => other.kind === "rule" && other.rule.table === rule.table && other.rule.chain === rule.chain,
  );
  // The chain goes with its rule that is undone last. An empty one that accepts has no effect; another policy is somebody's will.
  const removeChain = effect === first && effect.chainExisted === false && chain?.policy === "accept";
  if (removeChain) {
    const tableToo = effect.tableExisted === false;
    operations.push({ kind: "remove_empty_chain", table: rule.table, chain: rule.chain, tableToo });
  }
  return operations.length === 0 ? gone(title) : undo(title, operations);
}
