/**
 * The single effects that set-up and its undo are made of, as data. Each can be repeated, and each can be shown as commands
 * that do the same by hand. No I/O.
 */

import type { LanAddress, LanRoute } from "./lan.ts";
import { tableScript } from "./nft-table.ts";
import type { NftTable } from "./nft-table.ts";

/** A firewall rule's place and its match and target, as iptables takes them after `-I chain 1` or `-D chain`. */
export interface FirewallRule {
  readonly table: "nat" | "filter" | "raw";
  readonly chain: "POSTROUTING" | "FORWARD" | "PREROUTING";
  readonly match: readonly string[];
}

export type Operation =
  | { readonly kind: "create_bridge"; readonly link: string; readonly mac: string; readonly alias: string }
  | { readonly kind: "delete_link"; readonly link: string }
  | { readonly kind: "set_alias"; readonly link: string; readonly alias: string }
  | { readonly kind: "set_mac"; readonly link: string; readonly mac: string }
  | { readonly kind: "set_up"; readonly link: string; readonly up: boolean }
  | {
      readonly kind: "add_address" | "delete_address";
      readonly link: string;
      readonly address: string;
      readonly prefixLength: number;
    }
  /** A bridge that switches at once: no spanning tree, no forward delay. */
  | {
      readonly kind: "create_lan_bridge";
      readonly link: string;
      readonly mac: string;
      /** Bytes. */
      readonly mtu: number;
      readonly alias: string;
    }
  /**
   * Puts the card on the bridge, or takes it off, and the routes by either at once to the other. One operation, because in between the card
   * can't be used: answers to what it asks (ARP) arrive at the bridge.
   */
  | {
      readonly kind: "move_card";
      readonly link: string;
      readonly bridge: string;
      readonly to: "bridge" | "card";
      readonly routes: readonly LanRoute[];
    }
  | { readonly kind: "add_lan_address" | "delete_lan_address"; readonly link: string; readonly address: LanAddress }
  /** Adds the route, or gives the one to the same destination this link and gateway. */
  | { readonly kind: "replace_route"; readonly link: string; readonly route: LanRoute }
  | { readonly kind: "set_sysctl"; readonly name: string; readonly value: string }
  | { readonly kind: "enable_forwarding" }
  /** Turns forwarding off and then gives each setting the value named here. Names are as in {@link FORWARDING}. */
  | { readonly kind: "restore_forwarding"; readonly values: Readonly<Record<string, string>> }
  | { readonly kind: "insert_rule" | "delete_rule"; readonly rule: FirewallRule }
  | { readonly kind: "write_nft_table"; readonly table: NftTable }
  /** Only what bears the mark, where somebody put something else into it. */
  | { readonly kind: "delete_nft_table"; readonly name: string; readonly comment: string }
  /** Removes a base chain if nothing is left in it, and then its table if nothing is left in that. */
  | {
      readonly kind: "remove_empty_chain";
      readonly table: string;
      readonly chain: string;
      readonly tableToo: boolean;
    }
  | { readonly kind: "write_file"; readonly path: string; readonly content: string }
  | { readonly kind: "delete_file"; readonly path: string }
  | { readonly kind: "systemctl"; readonly verb: "enable" | "disable"; readonly unit: string }
  | { readonly kind: "systemd_reload" };

/** The switch for IPv4 forwarding, named by its path below /proc/sys: interface names may hold dots, paths keep them apart. */
export const FORWARDING = "net/ipv4/ip_forward";

/** One word of a shell command, quoted where it must be. */
export function shellWord(word: string): string {
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function command(...words: string[]): string {
  return words.map(shellWord).join(" ");
}

/** A command with `content` as its standard input, whatever the content is. */
function feedCommand(program: string, content: string): string {
  let end = "EOF";
  while (content.split("\n").includes(end)) end += "_";
  return `${program} <<'${end}'\n${content}${content.endsWith("\n") ? "" : "\n"}${end}`;
}

/** Commands that do the same by hand, to be pasted into a root shell. */
export function operationCommands(operation: Operation): string[] {
  switch (operation.kind) {
    case "create_bridge":
      return [
        command("ip", "link", "add", "name", operation.link, "address", operation.mac, "type", "bridge"),
        command("ip", "link", "set", "dev", operation.link, "alias", operation.alias),
      ];
    case "delete_link":
      return [command("ip", "link", "delete", "dev", operation.link)];
    case "set_alias":
      return [command("ip", "link", "set", "dev", operation.link, "alias", operation.alias)];
    case "set_mac":
      return [command("ip", "link", "set", "dev", operation.link, "address", operation.mac)];
    case "set_up":
      return [command("ip", "link", "set", "dev", operation.link, operation.up ? "up" : "down")];
    case "add_address":
    case "delete_address": {
      const verb = operation.kind === "add_address" ? "add" : "delete";
      return [command("ip", "address", verb, `${operation.address}/${operation.prefixLength}`, "dev", operation.link)];
    }
    case "create_lan_bridge": {
      const { link, mac, mtu, alias } = operation;
      const bridge = ["type", "bridge", "stp_state", "0", "forward_delay", "0"];
      return [
        command("ip", "link", "add", "name", link, "mtu", String(mtu), "address", mac, ...bridge),
        command("ip", "link", "set", "dev", link, "alias", alias),
      ];
    }
    case "move_card": {
      const { link, bridge, to, routes } = operation;
      const lines = routes.map((route) => command("ip", ...routeWords(route, to === "bridge" ? bridge : link)));
      return to === "bridge"
        ? [
            command("ip", "link", "set", "dev", link, "up", "master", bridge),
            command("ip", "link", "set", "dev", bridge, "up"),
            ...lines,
          ]
        : [
            command("ip", "link", "set", "dev", link, "nomaster"),
            ...lines,
            command("ip", "link", "set", "dev", bridge, "down"),
          ];
    }
    case "add_lan_address":
      return [command("ip", "address", "add", ...addressWords(operation.address, operation.link))];
    case "delete_lan_address": {
      const { address, prefixLength } = operation.address;
      return [command("ip", "address", "delete", `${address}/${prefixLength}`, "dev", operation.link)];
    }
    case "replace_route":
      return [command("ip", ...routeWords(operation.route, operation.link))];
    case "set_sysctl":
      return [command("sysctl", "-w", `${operation.name}=${operation.value}`)];
    case "enable_forwarding":
      return [command("sysctl", "-w", `${FORWARDING}=1`)];
    case "restore_forwarding":
      return [`${FORWARDING}=0`, ...Object.entries(operation.values).map(([name, value]) => `${name}=${value}`)].map(
        (assignment) => command("sysctl", "-w", assignment),
      );
    case "insert_rule":
      return [command("iptables", ...insertArguments(operation.rule))];
    case "delete_rule":
      return [command("iptables", ...deleteArguments(operation.rule))];
    case "write_nft_table":
      return [feedCommand(command("nft", "-f", "-"), tableScript(operation.table))];
    case "delete_nft_table":
      return [command("nft", "delete", "table", "ip", operation.name)];
    case "remove_empty_chain":
      return [
        command("iptables", "-w", "-t", operation.table, "-X", operation.chain),
        ...(operation.tableToo ? [command("nft", "delete", "table", "ip", operation.table)] : []),
      ];
    case "write_file":
      return [feedCommand(`cat > ${shellWord(operation.path)}`, operation.content)];
    case "delete_file":
      return [command("rm", "-f", operation.path)];
    case "systemctl":
      return [command("systemctl", operation.verb, operation.unit)];
    case "systemd_reload":
      return [command("systemctl", "daemon-reload")];
  }
}

/** ip-address(8)'s names of what are flags to the kernel. */
const ADDRESS_FLAGS: Readonly<Record<string, string>> = {
  noPrefixRoute: "noprefixroute",
  noDuplicateDetection: "nodad",
  homeAddress: "home",
};

function addressWords(address: LanAddress, link: string): string[] {
  const { peer, broadcast, scope, metric, flags, prefixLength } = address;
  const label = labelOn(address, link);
  return [
    ...(peer === undefined
      ? [`${address.address}/${prefixLength}`]
      : [address.address, "peer", `${peer}/${prefixLength}`]),
    ...(broadcast === undefined ? [] : ["broadcast", broadcast]),
    ...(label === undefined ? [] : ["label", label]),
    "dev",
    link,
    ...(scope === "global" ? [] : ["scope", String(scope)]),
    ...(metric === undefined ? [] : ["metric", String(metric)]),
    ...flags.flatMap((flag) => ADDRESS_FLAGS[flag] ?? []),
  ];
}

/** IFNAMSIZ holds a label, too (linux/if.h). */
const MAX_LABEL_BYTES = 15;

/** The address' label on that link; undefined for the link's own name, and where it does not fit. */
export function labelOn({ label }: LanAddress, link: string): string | undefined {
  const whole = label?.startsWith(":") === true ? link + label : label;
  return whole !== undefined && Buffer.byteLength(whole) <= MAX_LABEL_BYTES ? whole : undefined;
}

function routeWords(route: LanRoute, link: string): string[] {
  const { family, destination, gateway, preferredSource, metric, mtu, table, protocol, scope, type, flags } = route;
  const via =
    gateway === undefined ? [] : ["via", ...(gateway.includes(":") && family === "inet" ? ["inet6"] : []), gateway];
  return [
    ...(family === "inet6" ? ["-6"] : []),
    "route",
    "replace",
    ...(type === "unicast" ? [] : [type]),
    destination,
    ...via,
    "dev",
    link,
    "table",
    String(table),
    "proto",
    String(protocol),
    ...(family === "inet" ? ["scope", String(scope)] : []),
    ...(preferredSource === undefined ? [] : ["src", preferredSource]),
    ...(metric === undefined ? [] : ["metric", String(metric)]),
    ...(mtu === undefined ? [] : ["mtu", String(mtu)]),
    ...(flags.includes("onLink") ? ["onlink"] : []),
  ];
}

/** iptables' arguments that ask whether the rule is there. `-w` waits for whoever holds the lock (iptables(8)). */
export function checkArguments(rule: FirewallRule): string[] {
  return ["-w", "-t", rule.table, "-C", rule.chain, ...rule.match];
}

/**
 * iptables' arguments that put the rule first in its chain, where no DROP can come before it, be it by a rule or by a policy such as
 * Docker's.
 */
export function insertArguments(rule: FirewallRule): string[] {
  return ["-w", "-t", rule.table, "-I", rule.chain, "1", ...rule.match];
}

/** iptables' arguments that remove exactly this rule. */
export function deleteArguments(rule: FirewallRule): string[] {
  return ["-w", "-t", rule.table, "-D", rule.chain, ...rule.match];
}

/** The rule's identity, as text: its table, chain and match. */
export function ruleKey(rule: FirewallRule): string {
  return [rule.table, rule.chain, ...rule.match].join(" ");
}
