/** The firewall through iptables, as the contract says, and through nft for what iptables can't see: its own empty chains. */
import { VolantError } from "@volant/contract";
import type { ObservedChain, ObservedFirewall } from "../setup/observed.ts";
import { checkArguments, deleteArguments, insertArguments, ruleKey } from "../setup/operation.ts";
import type { FirewallRule } from "../setup/operation.ts";
import { complaint, findProgram, runProgram } from "./programs.ts";

/** iptables ends with 1 when a rule is not there, and with 2 to 4 when it could not look (iptables(8), exit status). */
const NOT_THERE = 1;

interface NftItem {
  readonly table?: { readonly family: string; readonly name: string };
  readonly chain?: {
    readonly family: string;
    readonly table: string;
    readonly name: string;
    readonly policy?: string;
  };
}

async function nft(...args: string[]): Promise<readonly NftItem[] | undefined> {
  const program = await findProgram("nft");
  if (program === undefined) return undefined;
  const result = await runProgram(program, ["-j", ...args]);
  if (result.status !== 0) return undefined;
  return (JSON.parse(result.stdout) as { readonly nftables: readonly NftItem[] }).nftables;
}

type Containers = Extract<ObservedFirewall, { state: "usable" }>["containers"];

/**
 * The IPv4 tables and chains. Undefined where nft is not there, and where iptables is the legacy one: its tables belong to the kernel's
 * modules and stay as long as those do.
 */
async function observeContainers(iptables: string): Promise<Containers> {
  const version = await runProgram(iptables, ["--version"]);
  if (!version.stdout.includes("nf_tables")) return undefined;
  const tables = await nft("list", "tables", "ip");
  const chains = await nft("list", "chains", "ip");
  if (tables === undefined || chains === undefined) return undefined;
  return {
    tables: tables.flatMap(({ table }) => (table?.family === "ip" ? [table.name] : [])),
    chains: chains.flatMap(({ chain }): ObservedChain[] =>
      chain?.family === "ip" ? [{ table: chain.table, name: chain.name, policy: chain.policy }] : [],
    ),
  };
}

/**
 * Which of the rules are in place. Looking creates nothing: iptables makes a chain only to put a rule into it.
 *
 * @param everything list tables and chains although no rule is missing: three programs less to run, where it is not asked for
 */
export async function observeFirewall(rules: readonly FirewallRule[], everything: boolean): Promise<ObservedFirewall> {
  const program = await findProgram("iptables");
  if (program === undefined) return { state: "missing" };
  const present: string[] = [];
  for (const rule of rules) {
    const result = await runProgram(program, checkArguments(rule));
    if (result.status === 0) present.push(ruleKey(rule));
    else if (result.status !== NOT_THERE) return { state: "unusable", reason: complaint(result) };
  }
  const containers = everything || present.length < rules.length ? await observeContainers(program) : undefined;
  return { state: "usable", rules: present, containers };
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
  const items = await nft("list", "table", "ip", table);
  const empty = items !== undefined && items.every((item) => "metainfo" in item || "table" in item);
  if (empty) await runProgram(nftProgram, ["delete", "table", "ip", table]);
}
