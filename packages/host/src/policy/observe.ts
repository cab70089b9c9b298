/**
 * What `nft -j list table` shows, read back into elements and entries. The table may have been changed by anybody: what is not just as
 * this code writes it is left out, and so comes to light as missing. No I/O.
 */
import { checkEntries, type EntryMark, type PolicyEntry, readMark } from "./entry.ts";
import { givingWay } from "./compile.ts";
import {
  counterName,
  elementKey,
  elementsOf,
  macOfNumber,
  MODE_CHAINS,
  type OthersElement,
  ownerOfCounter,
  type PolicyElement,
} from "./elements.ts";
import { expectedRules, NO_ENTRY_COUNTER } from "./ruleset.ts";

/** Frames and bytes that were dropped. */
export interface DropCount {
  readonly frames: number;
  readonly bytes: number;
}

/** The table as it is, from one installation's point of view. */
export interface ObservedPolicy {
  /** `absent`: no table. `changed`: rules are missing, added, or of another version: they must be put back. */
  readonly rules: "absent" | "changed" | "intact";
  /** All that bears this installation's mark. */
  readonly elements: readonly PolicyElement[];
  /** All that bears another installation's. */
  readonly others: readonly OthersElement[];
  /** Whether the table holds no element of anybody: nothing depends on it. */
  readonly empty: boolean;
  /** The entries that are there whole, in order of their VMs. Where `antiSpoof` is false, `mac`, `mode` and `addresses` are not known. */
  readonly entries: readonly ObservedEntry[];
  /** VMs whose entry is there in part only. */
  readonly damaged: readonly number[];
  /** Dropped frames by VM. */
  readonly dropped: ReadonlyMap<number, DropCount>;
  /** Frames from taps that have no entry of any installation. */
  readonly droppedWithoutEntry: DropCount;
}

/** An entry as the kernel holds it. */
export type ObservedEntry =
  | (PolicyEntry & { readonly antiSpoof: true })
  | { readonly vmId: number; readonly tap: string; readonly antiSpoof: false };

const NOTHING: DropCount = { frames: 0, bytes: 0 };

type Json = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** What an absent table looks like. */
export function absentPolicy(): ObservedPolicy {
  return readPolicy("0000", []);
}

/**
 * Reads the objects of the `nftables` array that `nft -j list table bridge volant` prints.
 *
 * @param installation whose elements to read
 */
export function readPolicy(installation: string, items: readonly unknown[]): ObservedPolicy {
  const elements: PolicyElement[] = [];
  const others: OthersElement[] = [];
  const dropped = new Map<number, DropCount>();
  const rules = new Map<string, string[]>();
  let droppedWithoutEntry = NOTHING;
  let tableSeen = false;
  let empty = true;
  for (const item of items) {
    if (!isObject(item)) continue;
    const { table, counter, chain, rule } = item;
    const keyed = item["set"] ?? item["map"];
    if (isObject(table)) tableSeen = true;
    if (isObject(chain)) rules.set(String(chain["name"]), []);
    if (isObject(rule)) rules.get(String(rule["chain"]))?.push(String(rule["comment"]));
    if (isObject(keyed)) empty &&= list(keyed["elem"]).length === 0;
    if (isObject(keyed)) {
      for (const marked of readElements(String(keyed["name"]), list(keyed["elem"]))) {
        if (marked.installation === installation) elements.push(marked.element);
        else others.push(marked);
      }
    }
    if (isObject(counter)) {
      const count = countOf(counter);
      const name = String(counter["name"]);
      const owner = ownerOfCounter(name);
      if (name === NO_ENTRY_COUNTER) droppedWithoutEntry = count;
      if (owner?.installation === installation) {
        dropped.set(owner.vmId, count);
        elements.push({ in: "counters", vmId: owner.vmId });
      } else if (owner !== undefined) {
        others.push({ installation: owner.installation, element: { in: "counters", vmId: owner.vmId } });
      }
    }
  }
  const state = !tableSeen ? "absent" : sameRules(rules) ? "intact" : "changed";
  return { rules: state, elements, others, empty, ...readEntries(elements), dropped, droppedWithoutEntry };
}

/**
 * Dropped frames by VM, of the counters that `nft -j list counters` prints. They are read several times a second while somebody asks, so nothing else is made of them.
 *
 * @param installation whose counters to read
 */
export function readDropped(installation: string, items: readonly unknown[]): ReadonlyMap<number, DropCount> {
  const dropped = new Map<number, DropCount>();
  for (const item of items) {
    const counter = isObject(item) ? item["counter"] : undefined;
    if (!isObject(counter)) continue;
    const owner = ownerOfCounter(String(counter["name"]));
    if (owner?.installation === installation) dropped.set(owner.vmId, countOf(counter));
  }
  return dropped;
}

function countOf(counter: Json): DropCount {
  return { frames: Number(counter["packets"]), bytes: Number(counter["bytes"]) };
}

/**
 * What the table holds after {@link changePolicy} has led from `before` to these (checked) entries, as reading it would show; the rules are in force then.
 *
 * @param scope the VMs that it was about
 */
export function changedPolicy(
  before: ObservedPolicy,
  desired: readonly PolicyEntry[],
  scope: ReadonlySet<number> | undefined,
): ObservedPolicy {
  const inScope = ({ vmId }: { readonly vmId: number }) => scope === undefined || scope.has(vmId);
  const put = checkEntries(desired.filter(inScope)).flatMap(elementsOf);
  const elements = [...before.elements.filter((element) => !inScope(element)), ...put];
  const gone = new Set(givingWay(before.others, desired.filter(inScope)));
  const entries = [...before.entries.filter((entry) => !inScope(entry)), ...readEntries(put).entries];
  return {
    ...before,
    rules: desired.length > 0 || before.rules !== "absent" ? "intact" : "absent",
    elements,
    others: gone.size === 0 ? before.others : before.others.filter((one) => !gone.has(one)),
    empty: before.empty && put.length === 0,
    entries: entries.toSorted((a, b) => a.vmId - b.vmId),
    damaged: before.damaged.filter((vmId) => !inScope({ vmId })),
  };
}

/** Other chains than ours do no harm: without a hook nothing leads to them, and with one they can only drop more. */
function sameRules(observed: ReadonlyMap<string, readonly string[]>): boolean {
  return [...expectedRules()].every(([chain, comments]) => observed.get(chain)?.join("\n") === comments.join("\n"));
}

function readElements(place: string, elements: readonly unknown[]): OthersElement[] {
  return elements.flatMap((item): OthersElement[] => {
    const [key, data] = Array.isArray(item) ? item : [item, undefined];
    const element = isObject(key) && isObject(key["elem"]) ? key["elem"] : undefined;
    if (element === undefined) return [];
    const mark = readMark(String(element["comment"]));
    if (mark === undefined) return [];
    const { installation } = mark;
    return readElement(place, mark, element["val"], data).map((read) => ({ installation, element: read }));
  });
}

function readElement(
  place: string,
  { installation, vmId, leaseSeconds }: EntryMark,
  value: unknown,
  data: unknown,
): PolicyElement[] {
  const parts = isObject(value) ? list(value["concat"]) : [value];
  const tap = String(parts[0]);
  const mac = String(parts[1]);
  switch (place) {
    case "dropped":
      return data === counterName(installation, vmId) ? [{ in: place, vmId, tap }] : [];
    case "unguarded":
    case "named":
      return [{ in: place, vmId, tap }];
    case "guests": {
      const target = isObject(data) && isObject(data["goto"]) ? data["goto"]["target"] : undefined;
      if (target === MODE_CHAINS.bridged) return [{ in: place, vmId, tap, mac, mode: "bridged" }];
      return target === MODE_CHAINS.dhcp ? [{ in: place, vmId, tap, mac, mode: "dhcp" }] : [];
    }
    case "leases":
      return [{ in: place, vmId, tap, mac, address: String(parts[2]), leaseSeconds }];
    case "dhcp_hardware":
      return [{ in: place, vmId, tap, mac: macOfNumber(Number(parts[1])) }];
    default:
      return [];
  }
}

function readEntries(elements: readonly PolicyElement[]): Pick<ObservedPolicy, "entries" | "damaged"> {
  const entries: ObservedEntry[] = [];
  const damaged: number[] = [];
  const byVm = Map.groupBy(elements, ({ vmId }) => vmId);
  for (const vmId of [...byVm.keys()].toSorted((a, b) => a - b)) {
    const entry = readEntry(vmId, byVm.get(vmId) ?? []);
    if (entry === undefined) damaged.push(vmId);
    else entries.push(entry);
  }
  return { entries, damaged };
}

/** The entry that these elements are the whole of. */
function readEntry(vmId: number, elements: readonly PolicyElement[]): ObservedEntry | undefined {
  const guest = elements.find((element) => element.in === "guests");
  const unguarded = elements.find((element) => element.in === "unguarded");
  const leases = elements.filter((element) => element.in === "leases");
  const addresses = leases.map(({ address }) => address).toSorted();
  const leaseSeconds = leases[0]?.leaseSeconds;
  const lease = leaseSeconds === undefined ? {} : { leaseSeconds };
  const candidate: PolicyEntry | undefined =
    guest !== undefined
      ? { vmId, tap: guest.tap, mac: guest.mac, mode: guest.mode, addresses, ...lease, antiSpoof: true }
      : unguarded && { vmId, tap: unguarded.tap, mac: "", mode: "bridged", addresses: [], antiSpoof: false };
  if (candidate === undefined) return undefined;
  const expected = elementsOf(candidate).map(elementKey).toSorted().join("\n");
  if (expected !== elements.map(elementKey).toSorted().join("\n")) return undefined;
  const { tap } = candidate;
  return guest === undefined ? { vmId, tap, antiSpoof: false } : { ...candidate, antiSpoof: true };
}
