/** nftables, through nft: the whole ruleset as it is, and a table of ours. */
import { VolantError } from "@volant/contract";
import { parseIptablesForward, parseRuleset } from "../setup/forward-chains.ts";
import type { ForwardChain } from "../setup/forward-chains.ts";
import { findTable, tableScript } from "../setup/nft-table.ts";
import type { NftTable } from "../setup/nft-table.ts";
import type { ObservedFirewall } from "../setup/observed.ts";
import { complaint, findProgram, runProgram } from "./programs.ts";

/** What a guest's IPv4 packets meet while they are forwarded. The bridge family's tables may hold some thousand elements of guests, and are looked at by themselves. */
const FAMILIES = ["ip", "inet"] as const;

/** The `nftables` arrays of `nft -j list ruleset` for those families, one after the other; undefined where there is no nft, or it does not work. */
export async function listRuleset(): Promise<readonly unknown[] | undefined> {
  const program = await findProgram("nft");
  const listed = program === undefined ? undefined : await listFamilies(program);
  return listed?.items;
}

type Listed = { readonly items: readonly unknown[] } | { readonly items: undefined; readonly reason: string };

async function listFamilies(program: string): Promise<Listed> {
  const results = await Promise.all(FAMILIES.map((family) => runProgram(program, ["-j", "list", "ruleset", family])));
  const failed = results.find(({ status }) => status !== 0);
  if (failed !== undefined) return { items: undefined, reason: complaint(failed) };
  return { items: results.flatMap(({ stdout }) => parseItems(stdout)) };
}

function parseItems(text: string): readonly unknown[] {
  return (JSON.parse(text) as { readonly nftables?: readonly unknown[] }).nftables ?? [];
}

/** The legacy iptables' FORWARD chain, which nft can't see; none where iptables keeps its rules in nftables. */
async function legacyForward(bridge: string): Promise<ForwardChain[]> {
  const iptables = await findProgram("iptables");
  if (iptables === undefined) return [];
  if ((await runProgram(iptables, ["--version"])).stdout.includes("nf_tables")) return [];
  const { status, stdout } = await runProgram(iptables, ["-w", "-S", "FORWARD"]);
  return status === 0 ? [parseIptablesForward(stdout, bridge)] : [];
}

/** Whether the table is in place, and which chains of other tables decide on what is forwarded, too. */
export async function observeNftables(wanted: NftTable, bridge: string): Promise<ObservedFirewall> {
  const program = await findProgram("nft");
  if (program === undefined) return { state: "missing" };
  const listed = await listFamilies(program);
  if (listed.items === undefined) return { state: "unusable", reason: listed.reason };
  const { items } = listed;
  const others = parseRuleset(items, bridge).forward.filter(
    ({ family, table }) => family !== "ip" || table !== wanted.name,
  );
  return {
    state: "usable",
    rules: [],
    containers: undefined,
    table: findTable(items, wanted),
    otherChains: [...others, ...(await legacyForward(bridge))],
  };
}

async function feed(script: string, what: string): Promise<void> {
  const program = await findProgram("nft");
  if (program === undefined) {
    throw new VolantError("not_ready", `can't ${what}: there is no nft`, { hint: "apt-get install nftables" });
  }
  const result = await runProgram(program, ["-f", "-"], script);
  if (result.status !== 0) throw new VolantError("not_ready", `can't ${what}: ${complaint(result)}`);
}

/** Makes the table, or puts it right, in one transaction. */
export async function writeTable(table: NftTable): Promise<void> {
  await feed(tableScript(table), `make the table ${table.name}`);
}

/** Deletes the table if it is there; where somebody put something into it, only the rules that are ours. */
export async function deleteTable(name: string, comment: string): Promise<void> {
  const items = await listRuleset();
  const found = items === undefined ? undefined : findTable(items, { name, comment, rules: [] });
  if (found === undefined) return;
  const rules = found.handles.map(({ chain, handle }) => `delete rule ip ${name} ${chain} handle ${handle}\n`);
  await feed(found.foreign ? rules.join("") : `delete table ip ${name}\n`, `remove the table ${name}`);
}
