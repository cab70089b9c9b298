/** Checks of what lets packets through, and what does not. No I/O. */
import { blockHolds, parseCidr } from "../ipv4.ts";
import { findObstacles, judgeChain } from "../setup/forward-chains.ts";
import { nftTableName } from "../setup/nft-table.ts";
import { FORWARDING, insertArguments, shellWord } from "../setup/operation.ts";
import { managedRules } from "../setup/rules.ts";
import { setupCommand } from "./check-bridge.ts";
import { broken, ok, skipped, type Verdict, warning } from "./finding.ts";
import type { DoctorSettings, DoctorView, SeenFirewall } from "./view.ts";

/** Bridged frames pass the IPv4 firewall where this is 1 (Documentation/networking/ip-sysctl.rst, bridge-nf-call-iptables). */
export const BRIDGE_NF_CALL = "net/bridge/bridge-nf-call-iptables";

/** A link's reverse path filter; the stricter of its own and that of `all` counts (ip-sysctl.rst, rp_filter). */
export function rpFilterName(link: string): string {
  return `net/ipv4/conf/${link}/rp_filter`;
}

const STRICT = 1;

/** The commands that put back the rules of these numbers; of nftables, the whole table. */
function insertCommands(settings: DoctorSettings, ...indexes: readonly number[]): string {
  if (settings.firewall === "nftables") return setupCommand(settings);
  const rules = managedRules(settings);
  return indexes
    .flatMap((index) => rules[index] ?? [])
    .map((rule) => ["iptables", ...insertArguments(rule)].map(shellWord).join(" "))
    .join(" && ");
}

export function checkForwarding({ sysctls, settings }: DoctorView): Verdict[] {
  const value = sysctls[FORWARDING];
  if (value === undefined) return [skipped("the kernel does not say whether it forwards IPv4")];
  if (value !== "0") return [ok("the kernel forwards IPv4")];
  return [
    broken(`IPv4 forwarding is off: guests of ${settings.bridge} reach this host only`, `sysctl -w ${FORWARDING}=1`),
  ];
}

export function checkMasquerade({ firewall, settings }: DoctorView): Verdict[] {
  if ("unseen" in firewall) return [skipped(firewall.unseen)];
  if (firewall.masquerade) return [ok(`packets of ${settings.subnet} leave under the host's address`)];
  const sentence = `the rule that masquerades ${settings.subnet} is missing: answers to guests don't find their way back`;
  return [broken(sentence, insertCommands(settings, 0))];
}

function missingAccepts({ acceptFrom, acceptTo }: SeenFirewall): number[] {
  return [...(acceptFrom ? [] : [1]), ...(acceptTo ? [] : [2])];
}

export function checkForwardPolicy({ firewall, settings }: DoctorView): Verdict[] {
  if ("unseen" in firewall) return [skipped(firewall.unseen)];
  const { bridge } = settings;
  const missing = missingAccepts(firewall);
  if (missing.length > 0) {
    const fix = insertCommands(settings, ...missing);
    const what = `a rule that accepts what is forwarded ${missing.length === 2 ? "from and to" : missing[0] === 1 ? "from" : "to"} ${bridge} is missing`;
    if (firewall.forwardPolicy === "DROP" || firewall.droppedBy !== undefined) {
      return [broken(`${what}, and the FORWARD chain drops all else`, fix)];
    }
    if (settings.firewall === "nftables") return [warning(what, fix)];
    return [
      warning(
        `${what}: guests are cut off as soon as something sets the policy of FORWARD to DROP, as Docker does`,
        fix,
      ),
    ];
  }
  if (firewall.droppedBy !== undefined) {
    const rules = managedRules(settings).slice(1);
    const again = rules.flatMap((rule) => [
      ["iptables", "-w", "-t", rule.table, "-D", rule.chain, ...rule.match].map(shellWord).join(" "),
      ["iptables", ...insertArguments(rule)].map(shellWord).join(" "),
    ]);
    const sentence = `a rule drops guests' packets before the rules that accept those of ${bridge} are asked`;
    return [broken(`${sentence}: ${firewall.droppedBy}`, again.join(" && "))];
  }
  const chain = settings.firewall === "nftables" ? `the table ${nftTableName(bridge)}` : "the FORWARD chain";
  return [ok(`${chain} accepts what comes from ${bridge} and goes there`)];
}

export function checkForwardDrop({ firewall, settings }: DoctorView): Verdict[] {
  if ("unseen" in firewall) return [skipped(firewall.unseen)];
  if (firewall.otherChains === undefined)
    return [skipped("there is no nft on this host to look into other tables with")];
  const verdicts = findObstacles(firewall.otherChains, settings.bridge).map(({ certain, sentence, fix }) =>
    (certain ? broken : warning)(sentence, fix),
  );
  return verdicts.length > 0 ? verdicts : [ok("no other table drops what is forwarded")];
}

export function checkFirewallFrontend({ firewall, settings }: DoctorView): Verdict[] {
  if ("unseen" in firewall) return [skipped(firewall.unseen)];
  const { bridge } = settings;
  const fixes = {
    firewalld: `firewall-cmd --permanent --zone=trusted --add-interface=${bridge} && firewall-cmd --reload`,
    ufw: `ufw route allow in on ${bridge} && ufw route allow out on ${bridge} && ufw allow in on ${bridge}`,
  };
  const verdicts = firewall.frontends.map((name) =>
    warning(`${name} is active: a reload of it may remove or overrule the rules that guests need`, fixes[name]),
  );
  return verdicts.length > 0 ? verdicts : [ok("neither firewalld nor ufw is active")];
}

export function checkBrNetfilter({ firewall, settings, sysctls }: DoctorView): Verdict[] {
  if (sysctls[BRIDGE_NF_CALL] !== "1") return [ok("frames between guests don't pass the IPv4 firewall")];
  if ("unseen" in firewall) return [skipped(`frames between guests pass the IPv4 firewall; ${firewall.unseen}`)];
  const refused = missingAccepts(firewall).length > 0 && firewall.forwardPolicy === "DROP";
  const dropped = (firewall.otherChains ?? []).some((chain) => judgeChain(chain) === "drops");
  if (!refused && firewall.droppedBy === undefined && !dropped) {
    return [ok("frames between guests pass the IPv4 firewall, and it accepts them")];
  }
  const sentence = `frames between guests of ${settings.bridge} pass the IPv4 firewall (br_netfilter), and it drops them`;
  return [broken(sentence, `sysctl -w ${BRIDGE_NF_CALL}=0`)];
}

/** The stricter of a link's own filter and that of `all`. */
function rpFilter(sysctls: DoctorView["sysctls"], link: string): number {
  return Math.max(...["all", link].map((name) => Number(sysctls[rpFilterName(name)] ?? 0)));
}

export function checkRpFilter({ sysctls, settings, network }: DoctorView): Verdict[] {
  if (network === undefined) return [skipped("the host's links can't be listed")];
  const { bridge, block } = settings;
  const fix = (link: string) => `sysctl -w ${rpFilterName("all")}=2 ${rpFilterName(link)}=2`;
  const verdicts: Verdict[] = [];
  const elsewhere = network.routes.find(({ destination, link, leads }) => {
    const cidr = parseCidr(destination);
    return (
      leads &&
      link !== bridge &&
      cidr !== undefined &&
      cidr.prefixLength >= block.prefixLength &&
      blockHolds(block, cidr.address)
    );
  });
  if (elsewhere !== undefined && rpFilter(sysctls, bridge) === STRICT) {
    const sentence = `the reverse path filter of ${bridge} is strict, and the route to ${elsewhere.destination} leads elsewhere: packets of guests with such an address are dropped`;
    verdicts.push(broken(sentence, fix(bridge)));
  }
  const out = [
    ...new Set(network.routes.flatMap(({ destination, link }) => (destination === "0.0.0.0/0" ? (link ?? []) : []))),
  ];
  const strict = out.filter((link) => rpFilter(sysctls, link) === STRICT);
  if (out.length > 1) {
    for (const link of strict) {
      const sentence = `the reverse path filter of ${link} is strict, and ${out.length} default routes lead out: answers to guests that come in by another link than they went out by are dropped`;
      verdicts.push(warning(sentence, fix(link)));
    }
  }
  return verdicts.length > 0 ? verdicts : [ok("the reverse path filter is in nobody's way")];
}
