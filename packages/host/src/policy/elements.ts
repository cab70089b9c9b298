/** An entry as what the table holds of it: elements of sets and maps, and a counter. No I/O. */
import { checkInstallation, entryMark, type PolicyEntry, TAP_PREFIX } from "./entry.ts";

/** One element, or a counter. Two are the same when their {@link elementKey} and their value are. */
export type PolicyElement =
  | { readonly in: "counters"; readonly vmId: number }
  | { readonly in: "dropped"; readonly vmId: number; readonly tap: string }
  | { readonly in: "unguarded"; readonly vmId: number; readonly tap: string }
  /** A tap that isn't called as ours are: the rules look at it because it is named here. */
  | { readonly in: "named"; readonly vmId: number; readonly tap: string }
  | {
      readonly in: "guests";
      readonly vmId: number;
      readonly tap: string;
      readonly mac: string;
      readonly mode: PolicyEntry["mode"];
    }
  | {
      readonly in: "leases";
      readonly vmId: number;
      readonly tap: string;
      readonly mac: string;
      readonly address: string;
      readonly leaseSeconds?: number | undefined;
    }
  | { readonly in: "dhcp_hardware"; readonly vmId: number; readonly tap: string; readonly mac: string };

/** What the table holds of an installation that is not the one that looks. */
export interface OthersElement {
  readonly installation: string;
  readonly element: PolicyElement;
}

/** The chain that a guest's frames go through, by its mode. */
export const MODE_CHAINS = { bridged: "bridged_guest", dhcp: "dhcp_guest" } as const satisfies Record<
  PolicyEntry["mode"],
  string
>;

/** The name of a VM's counter of dropped frames. */
export function counterName(installation: string, vmId: number): string {
  return `vm_${checkInstallation(installation)}_${vmId}`;
}

/** The VM that a counter's name names, and whose it is; undefined when it is no VM's counter. */
export function ownerOfCounter(name: string): { readonly installation: string; readonly vmId: number } | undefined {
  const [, installation, vmId] = /^vm_([0-9a-f]{4,64})_([1-9]\d{0,15})$/.exec(name) ?? [];
  return installation === undefined ? undefined : { installation, vmId: Number(vmId) };
}

/** What the table must hold for one (checked) entry. */
export function elementsOf(entry: PolicyEntry): PolicyElement[] {
  const { vmId, tap, mac, mode, antiSpoof } = entry;
  const counted: PolicyElement[] = [
    { in: "counters", vmId },
    { in: "dropped", vmId, tap },
    ...(tap.startsWith(TAP_PREFIX) ? [] : [{ in: "named", vmId, tap } as const]),
  ];
  if (!antiSpoof) return [...counted, { in: "unguarded", vmId, tap }];
  const { leaseSeconds } = entry;
  const leases = entry.addresses.map((address): PolicyElement => ({
    in: "leases",
    vmId,
    tap,
    mac,
    address,
    leaseSeconds,
  }));
  const hardware: PolicyElement[] = mode === "dhcp" ? [{ in: "dhcp_hardware", vmId, tap, mac }] : [];
  return [...counted, { in: "guests", vmId, tap, mac, mode }, ...leases, ...hardware];
}

/** Text that is equal for two elements exactly when they are the same, owner and value included. */
export function elementKey(element: PolicyElement): string {
  const { in: place, vmId } = element;
  const tap = "tap" in element ? element.tap : "";
  const mac = "mac" in element ? element.mac : "";
  const rest = "mode" in element ? element.mode : "address" in element ? element.address : "";
  const lease = element.in === "leases" ? String(element.leaseSeconds) : "";
  return [place, vmId, tap, mac, rest, lease].join(" ");
}

/** A hardware address as the number that nft's JSON shows for six bytes of a packet. */
export function macNumber(mac: string): number {
  return Number.parseInt(mac.replaceAll(":", ""), 16);
}

/** The hardware address of such a number. */
export function macOfNumber(value: number): string {
  return value.toString(16).padStart(12, "0").match(/../g)?.join(":") ?? "";
}

/** The element as libnftables-json(5) takes it in a list of elements, under the VM's mark. */
export function elementJson(installation: string, element: Exclude<PolicyElement, { in: "counters" }>): unknown {
  const marked = { val: elementValue(element), comment: markOf(installation, element) };
  if (element.in === "dropped") return [{ elem: marked }, counterName(installation, element.vmId)];
  if (element.in === "guests") return [{ elem: marked }, { goto: { target: MODE_CHAINS[element.mode] } }];
  return { elem: marked };
}

function markOf(installation: string, element: Exclude<PolicyElement, { in: "counters" }>): string {
  return entryMark(installation, element.vmId, element.in === "leases" ? element.leaseSeconds : undefined);
}

/** The element's key alone. */
export function elementValue(element: Exclude<PolicyElement, { in: "counters" }>): unknown {
  switch (element.in) {
    case "dropped":
    case "unguarded":
    case "named":
      return element.tap;
    case "guests":
      return { concat: [element.tap, element.mac] };
    case "leases":
      return { concat: [element.tap, element.mac, element.address] };
    case "dhcp_hardware":
      return { concat: [element.tap, macNumber(element.mac)] };
  }
}
