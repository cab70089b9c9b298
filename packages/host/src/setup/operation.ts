/**
 * The single effects that set-up and its undo are made of, as data. Each can be repeated, and each can be shown as commands
 * that do the same by hand. No I/O.
 */

/** A firewall rule's place and its match and target, as iptables takes them after `-I chain 1` or `-D chain`. */
export interface FirewallRule {
  readonly table: "nat" | "filter";
  readonly chain: "POSTROUTING" | "FORWARD";
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
  | { readonly kind: "enable_forwarding" }
  /** Turns forwarding off and then gives each setting the value named here. Names are as in {@link FORWARDING}. */
  | { readonly kind: "restore_forwarding"; readonly values: Readonly<Record<string, string>> }
  | { readonly kind: "insert_rule" | "delete_rule"; readonly rule: FirewallRule }
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

/** A command that writes `content` to `path`, whatever the content is. */
function writeCommand(path: string, content: string): string {
  let end = "EOF";
  while (content.split("\n").includes(end)) end += "_";
  return `cat > ${shellWord(path)} <<'${end}'\n${content}${content.endsWith("\n") ? "" : "\n"}${end}`;
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
    case "remove_empty_chain":
      return [
        command("iptables", "-w", "-t", operation.table, "-X", operation.chain),
        ...(operation.tableToo ? [command("nft", "delete", "table", "ip", operation.table)] : []),
      ];
    case "write_file":
      return [writeCommand(operation.path, operation.content)];
    case "delete_file":
      return [command("rm", "-f", operation.path)];
    case "systemctl":
      return [command("systemctl", operation.verb, operation.unit)];
    case "systemd_reload":
      return [command("systemctl", "daemon-reload")];
  }
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
