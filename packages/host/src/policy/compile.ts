/** From what should be and what is to nft's commands (libnftables-json(5)): pure, and the only compiler of policies. */
import { checkEntries, checkEntry, checkInstallation, type PolicyEntry } from "./entry.ts";
import {
  counterName,
  elementJson,
  elementKey,
  elementsOf,
  type OthersElement,
  type PolicyElement,
} from "./elements.ts";
import { TABLE } from "./ruleset.ts";

/** One command of libnftables-json(5). A list of them is one transaction: all of it holds, or none. */
export type NftCommand = { readonly [verb in "add" | "delete"]?: Readonly<Record<string, unknown>> };

/** Elements before the counters they name when they go, and after them when they come. */
const PLACES = ["dropped", "named", "guests", "unguarded", "leases", "dhcp_hardware"] as const;

function commands(verb: "add" | "delete", installation: string, elements: readonly PolicyElement[]): NftCommand[] {
  const counters = elements
    .filter((element) => element.in === "counters")
    .map(({ vmId }) => ({
      [verb]: { counter: { family: "bridge", table: TABLE, name: counterName(installation, vmId) } },
    }));
  const changes = PLACES.flatMap((place): NftCommand[] => {
    const elem = elements.flatMap((element) =>
      element.in === "counters" || element.in !== place ? [] : [elementJson(installation, element)],
    );
    return elem.length === 0 ? [] : [{ [verb]: { element: { family: "bridge", table: TABLE, name: place, elem } } }];
  });
  return verb === "add" ? [...counters, ...changes] : [...changes, ...counters];
}

/** Commands that put all these entries into a table that holds none of them. Repeating them changes nothing. */
export function compilePolicyTable(installation: string, entries: readonly PolicyEntry[]): NftCommand[] {
  return commands("add", checkInstallation(installation), checkEntries(entries).flatMap(elementsOf));
}

/** Commands that put one entry in. Repeating them changes nothing; an entry that differs is changed by {@link changePolicy}. */
export function addEntry(installation: string, entry: PolicyEntry): NftCommand[] {
  return commands("add", checkInstallation(installation), elementsOf(checkEntry(entry)));
}

/** Commands that take one entry out, just as it was put in. The tap passes nothing afterwards. */
export function removeEntry(installation: string, entry: PolicyEntry): NftCommand[] {
  return commands("delete", checkInstallation(installation), elementsOf(checkEntry(entry)));
}

/**
 * What of other installations is about the taps of these entries. All of it has to go before they hold: one more hardware address, or the word that
 * lets everything pass, would be as good for whoever has the tap now.
 */
export function givingWay(others: readonly OthersElement[], desired: readonly PolicyEntry[]): OthersElement[] {
  if (others.length === 0) return [];
  const taps = new Set(desired.map(({ tap }) => tap));
  const vmOf = ({ installation, element }: OthersElement): string => `${installation} ${element.vmId}`;
  const isTaken = ({ element }: OthersElement): boolean => "tap" in element && taps.has(element.tap);
  const taken = new Set(others.filter(isTaken).map(vmOf));
  // Its counter goes with its last tap.
  const counted = new Set(others.filter((one) => one.element.in === "dropped" && !isTaken(one)).map(vmOf));
  return others.filter(
    (one) => isTaken(one) || (one.element.in === "counters" && taken.has(vmOf(one)) && !counted.has(vmOf(one))),
  );
}

/** Commands that take out what bears other installations' marks. */
export function removeOthers(others: readonly OthersElement[]): NftCommand[] {
  return [...Map.groupBy(others, ({ installation }) => installation)].flatMap(([installation, list]) =>
    commands(
      "delete",
      checkInstallation(installation),
      list.map(({ element }) => element),
    ),
  );
}

/**
 * Commands that lead from what the table holds of this installation to what it should: empty when nothing differs. Elements that stay are
 * not touched, so a guest's traffic goes on while another address is added to it, and its counter keeps its count.
 *
 * @param observed what the table holds (see observe.ts); only elements of VMs in scope are looked at
 * @param desired the entries that should be
 * @param scope the VMs that this is about; all, when absent
 */
export function changePolicy(
  installation: string,
  observed: readonly PolicyElement[],
  desired: readonly PolicyEntry[],
  scope?: ReadonlySet<number>,
): NftCommand[] {
  checkInstallation(installation);
  const inScope = ({ vmId }: { readonly vmId: number }) => scope === undefined || scope.has(vmId);
  const wanted = checkEntries(desired.filter(inScope)).flatMap(elementsOf);
  const present = observed.filter(inScope);
  const wantedKeys = new Set(wanted.map(elementKey));
  const presentKeys = new Set(present.map(elementKey));
  const excess = present.filter((element) => !wantedKeys.has(elementKey(element)));
  const missing = wanted.filter((element) => !presentKeys.has(elementKey(element)));
  return [...commands("delete", installation, excess), ...commands("add", installation, missing)];
}
