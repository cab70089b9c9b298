/** At rest: what volantd shows is held against what clients know, and what the host and the store hold against what volantd shows. */
import { DatabaseSync } from "node:sqlite";
import { setTimeout as pause } from "node:timers/promises";
import type { Vm } from "@volant/contract";
import { ipJson } from "../namespace.ts";
import { findProcesses, runProgram, vmEntries } from "../vm/house.ts";
import { taps } from "./faults.ts";
import { clashes, contradictions, isRestless, restingStatuses, type Mode } from "./knowledge.ts";
import type { World } from "./world.ts";

/** For restarts that wait for their turn, and a host that is looked at every ten seconds. */
const REST_WITHIN_MS = 120_000;
const LOOK_EVERY_MS = 150;

/** Whether a VM of which nothing is known (everybody's) is at rest. */
function isAtRest({ status, next_restart_at: due, network, reason }: Vm): boolean {
  if (due !== undefined || reason === "deleting") return false;
  return status !== "pending" && (status !== "starting" || network.mode === "dhcp");
}

/** What clients know and volantd shows otherwise. */
function unlikeKnown(world: World, vms: readonly Vm[]): string[] {
  const found = clashes(vms);
  const shown = new Map(vms.map((vm) => [vm.name, vm]));
  for (const [name, known] of world.known) {
    const vm = shown.get(name);
    shown.delete(name);
    if (known === undefined || vm === undefined) {
      if (known !== undefined) found.push(`${name} is not there`);
      if (vm !== undefined) found.push(`${name} is there, ${vm.status} (${vm.reason ?? "no reason"})`);
      continue;
    }
    found.push(...contradictions(known, name, vm));
    // Without its tap a guest may not come up any more, and says so.
    const isCut = known.hurt && vm.reason?.includes("was removed") === true;
    const resting = restingStatuses(known, vm.network.mode as Mode);
    const statuses = isCut ? [...resting, "starting"] : resting;
    const waits = vm.next_restart_at !== undefined && !isRestless(known);
    if (waits || !statuses.includes(vm.status)) {
      found.push(`${name} is ${vm.status} (${vm.reason ?? "no reason"}), not ${statuses.join(" or ")}`);
    }
  }
  for (const vm of shown.values()) {
    if (!isAtRest(vm) && !world.wiped.has(vm.id))
      found.push(`${vm.name} is ${vm.status} (${vm.reason ?? "no reason"}) and not at rest`);
  }
  return found;
}

/** What is there and should not be, and the other way round. What is in `either` is right in both ways. */
function unlike(
  what: string,
  actual: Iterable<unknown>,
  expected: Iterable<unknown>,
  either: Iterable<unknown>,
): string[] {
  const seen = new Set([...actual].map(String));
  const wanted = new Set([...expected].map(String));
  const free = new Set([...either].map(String));
  const surplus = [...seen].filter((item) => !wanted.has(item) && !free.has(item));
  const missing = [...wanted].filter((item) => !seen.has(item) && !free.has(item));
  return [...surplus.map((item) => `${what} ${item} is left`), ...missing.map((item) => `${what} ${item} is missing`)];
}

function rows(world: World, query: string): string[] {
  const database = new DatabaseSync(world.house.environment["VOLANT_DB_PATH"] ?? "", { readOnly: true });
  try {
    return database
      .prepare(query)
      .all()
      .map((row) => Object.values(row).join(" "));
  } finally {
    database.close();
  }
}

/** The VMs that the rules have entries of, by their counters. */
async function countedIds({ installation }: World): Promise<number[]> {
  const { code, stdout } = await runProgram("nft", ["-j", "list", "counters", "table", "bridge", "volant"]);
  if (code !== 0) return [];
  const { nftables } = JSON.parse(stdout) as { readonly nftables: { readonly counter?: { readonly name: string } }[] };
  const prefix = `vm_${installation}_`;
  const names = nftables.flatMap(({ counter }) => (counter === undefined ? [] : [counter.name]));
  return names.filter((name) => name.startsWith(prefix)).map((name) => Number(name.slice(prefix.length)));
}

async function listeners(): Promise<string[]> {
  const { stdout } = await runProgram("ss", ["-ltnH"]);
  const addresses = stdout.split("\n").flatMap((line) => line.split(/\s+/)[3] ?? []);
  return addresses.filter((address) => address !== "127.0.0.1:7777" && address !== "");
}

/** What the host and the store have, and should not by what volantd shows; or lack. */
async function unlikeHost(world: World, vms: readonly Vm[]): Promise<string[]> {
  const { installation, house } = world;
  const restless = vms.filter(({ name, id }) => {
    const known = world.known.get(name);
    return world.wiped.has(id) || (known !== undefined && isRestless(known));
  });
  const up = vms.filter(({ pid }) => pid !== undefined);
  const wired = up.filter(({ network }) => network.tap !== undefined && network.mode !== "vsock");
  // Only a restart makes a tap anew while the hypervisor holds the old one.
  const cut = wired.filter(({ reason }) => reason?.includes("was removed") === true);
  const addressed = (among: readonly Vm[]): string[] =>
    among.flatMap(({ ip_address: address, mac_address: mac }) => (address === "" ? [] : [`${address} ${mac}`]));
  const ids = (among: readonly Vm[]): number[] => among.map(({ id }) => id);
  const tapNames = (among: readonly Vm[]): string[] => among.flatMap(({ network }) => network.tap ?? []);
  const bridged = wired.filter(({ network }) => network.mode === "bridged");
  const neighbours = ipJson("neigh", "show", "nud", "permanent", "dev", "vbr0");
  const ports = vms.flatMap(({ network }) => network.published ?? []);
  const processes = findProcesses(`guest=volant:${installation}:`);
  const restlessPids = restless.flatMap(({ id }) => findProcesses(`guest=volant:${installation}:${id}:`));
  const unsteady = [...restless, ...cut];
  return [
    ...unlike(
      "process",
      processes,
      up.map(({ pid }) => pid),
      [...restlessPids, ...restless.map(({ pid }) => pid)],
    ),
    ...unlike("tap", taps(), tapNames(wired.filter((vm) => !cut.includes(vm))), tapNames(restless)),
    ...unlike(
      "neighbour",
      neighbours.map((entry) => `${String(entry["dst"])} ${String(entry["lladdr"])}`),
      addressed(bridged),
      addressed(unsteady),
    ),
    ...unlike("rules of VM", await countedIds(world), ids(wired), ids(unsteady)),
    ...unlike("folder", vmEntries(house.environment["VOLANT_RUNTIME_DIR"]), ids(up), ids(restless)),
    ...unlike("row", rows(world, "SELECT id FROM vms"), ids(vms), []),
    ...unlike(
      "port",
      await listeners(),
      ports.map(({ host_address, host_port }) => `${host_address}:${host_port}`),
      [],
    ),
    ...unlike(
      "log",
      vmEntries(house.environment["VOLANT_LOG_DIR"]).map((name) => name.replace(/\..*$/, "")),
      [],
      vms.flatMap(({ name, id }) => [name, `vm-${id}`]),
    ),
  ];
}

async function differences(world: World): Promise<string[]> {
  const { body } = await world.ask({ method: "GET", path: "vms" });
  const vms = body as readonly Vm[];
  const found = unlikeKnown(world, vms);
  return found.length > 0 ? found : await unlikeHost(world, vms);
}

/**
 * Waits until all is as it should be: nothing tells a stranger when the host is, so it is looked at again and again.
 *
 * @throws Error with every difference that is left when time is up
 */
export async function comeToRest(world: World): Promise<void> {
  const deadline = performance.now() + REST_WITHIN_MS;
  let told = "";
  for (;;) {
    const found = await differences(world);
    if (found.length === 0) return;
    const text = found.join("; ");
    if (text !== told) world.tell(`not at rest: ${text}`);
    told = text;
    if (performance.now() > deadline) throw new Error(`not at rest within ${REST_WITHIN_MS} ms:\n${found.join("\n")}`);
    await pause(LOOK_EVERY_MS);
  }
}

/** Deletes every VM, and forgets what was known of them. */
export async function deleteAll(world: World): Promise<void> {
  const { body } = await world.ask({ method: "GET", path: "vms?limit=1000" });
  await Promise.all((body as Vm[]).map(({ name }) => world.ask({ method: "DELETE", path: `vms/${name}` })));
  for (const name of world.known.keys()) world.known.set(name, undefined);
}
