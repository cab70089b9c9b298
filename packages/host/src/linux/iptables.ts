/** The firewall through iptables, as the contract says, and through nft for what iptables can't see: its own empty chains. */
import { VolantError } from "@volant/contract";
import { isIptablesForward, parseRuleset } from "../setup/forward-chains.ts";
import type { ObservedChain, ObservedFirewall } from "../setup/observed.ts";
import { checkArguments, deleteArguments, insertArguments, ruleKey } from "../setup/operation.ts";
import type { FirewallRule } from "../setup/operation.ts";
import { listRuleset } from "./nftables.ts";
import { complaint, findProgram, runProgram } from "./programs.ts";

/** iptables ends with 1 when a rule is not there, and with 2 to 4 when it could not look (iptables(8), exit status). */
const NOT_THERE = 1;

type Usable = Extract<ObservedFirewall, { state: "usable" }>;

/**
 * The IPv4 tables and chains, and which other chains decide on what is forwarded. What iptables has in nft's tables is looked at through
 * iptables. No tables and chains where nft is not there, and where iptables is the legacy one: its own belong to the kernel's modules and stay as
 * long as those do.
 */
async function observeRuleset(inNft: boolean, bridge: string): Promise<Pick<Usable, "containers" | "otherChains">> {
  const items = await listRuleset();
  if (items === undefined) return { containers: undefined, otherChains: undefined };
  const { tables, chains, forward } = parseRuleset(items, bridge);
  const containers = {
    tables: tables.flatMap(({ family, name }) => (family === "ip" ? [name] : [])),
    chains: chains.flatMap(({ family, ...chain }): ObservedChain[] => (family === "ip" ? [chain] : [])),
  };
  return {
    containers: inNft ? containers : undefined,
    otherChains: inNft ? forward.filter((chain) => !isIptablesForward(chain)) : forward,
  };
}

/**
 * Which of the rules are in place. Looking creates nothing: iptables makes a chain only to put a rule into it.
 *
 * @param bridge whose guests other tables' chains are judged for
 * @param everything list tables and chains although no rule is missing: a program less to run, where it is not asked for
 */
export async function observeIptables(
  rules: readonly FirewallRule[],
  bridge: string,
  everything: boolean,
): Promise<ObservedFirewall> {
  const program = await findProgram("iptables");
  if (program === undefined) return { state: "missing" };
  const [version, ...results] = await Promise.all([
    runProgram(program, ["--version"]),
    ...rules.map((rule) => runProgram(program, checkArguments(rule))),
  ]);
  const failed = results.find(({ status }) => status !== 0 && status !== NOT_THERE);
  if (failed !== undefined) return { state: "unusable", reason: complaint(failed) };
  const present = rules.flatMap((rule, index) => (results[index]?.status === 0 ? [ruleKey(rule)] : []));
  const inNft = version.stdout.includes("nf_tables");
  const unseen = { containers: undefined, otherChains: undefined };
  const ruleset = everything || present.length < rules.length ? await observeRuleset(inNft, bridge) : unseen;
  return { state: "usable", rules: present, untold: !inNft, table: undefined, ...ruleset };
}

async function change(args: readonly string[], what: string): Promise<void> {
  const program = await findProgram("iptables");
  if (program === undefined) {
    throw new VolantError("not_ready", `can't ${what}: there is no iptables`, { hint: "apt-get install iptables" });
  }
  const result = await runProgram(program, args);
  if (result.status !== 0) throw new VolantError("not_ready", `can't ${what}: ${complaint(result)}`);
}

async function isPresent(rule: FirewallRule): Promise<boolean> {
  const program = await findProgram("iptables");
  return program !== undefined && (await runProgram(program, checkArguments(rule))).status === 0;
}

/** Puts the rule first in its chain, unless it is there. */
export async function insertRule(rule: FirewallRule): Promise<void> {
  if (!(await isPresent(rule))) await change(insertArguments(rule), `add the rule "${rule.match.join(" ")}"`);
}

/** Removes the rule, if it is there: every copy, as each one bears our mark. */
export async function deleteRule(rule: FirewallRule): Promise<void> {
  // Somebody who adds them as fast as this removes them must not keep it here for ever.
  for (let copy = 0; copy < 16 && (await isPresent(rule)); copy += 1) {
    await change(deleteArguments(rule), `remove the rule "${rule.match.join(" ")}"`);
  }
}

/**
 * Removes a base chain that holds nothing, and then its table, when that holds nothing either. iptables does the first: unlike
 * nft's, its request makes the kernel refuse when a rule has come into the chain meanwhile.
 */
export async function removeEmptyChain(table: string, chain: string, tableToo: boolean): Promise<void> {
  const iptables = await findProgram("iptables");
  const nftProgram = await findProgram("nft");
  if (iptables === undefined || nftProgram === undefined) return;
  await runProgram(iptables, ["-w", "-t", table, "-X", chain]);
  if (!tableToo) return;
  const listed = await runProgram(nftProgram, ["-j", "list", "table", "ip", table]);
  if (listed.status !== 0) return;
  const items = (JSON.parse(listed.stdout) as { readonly nftables: readonly object[] }).nftables;
  const empty = items.every((item) => "metainfo" in item || "table" in item);
  if (empty) await runProgram(nftProgram, ["delete", "table", "ip", table]);
}
