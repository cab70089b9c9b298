/**
 * What a guest may send, as one entry for each tap: wanted, and as it is seen. Apart from `network`, so that another mode never loosens it. Pure.
 */

/** What a VM's tap lets through. */
export interface VmPolicy {
  readonly vmId: number;
  readonly tap: string;
  readonly mac: string;
  readonly mode: "bridged" | "dhcp";
  /** IPv4 addresses that it may send from: what the host leased to it, or what a DHCP server was seen to. */
  readonly addresses: readonly string[];
  /** In `dhcp`, for how long the server gave it. */
  readonly leaseSeconds?: number | undefined;
  /** False lets everything through: the operator's word. */
  readonly antiSpoof: boolean;
}

/** An entry as the kernel holds it. Of one that lets everything through, no more is known. */
export type SeenPolicy =
  | (VmPolicy & { readonly antiSpoof: true })
  | { readonly vmId: number; readonly tap: string; readonly antiSpoof: false };

/** A VM's part of the rules as they are. */
export type ObservedPolicy =
  | { readonly usable: false; readonly reason: string }
  | {
      readonly usable: true;
      /** The rules that all entries rely on are whole. */
      readonly intact: boolean;
      /** `damaged`: a part of it only. */
      readonly entry: SeenPolicy | "damaged" | undefined;
    };

/** What is seen of an entry once it was put in. */
export function asSeen(policy: VmPolicy): SeenPolicy {
  const { vmId, tap, antiSpoof } = policy;
  return antiSpoof ? { ...policy, antiSpoof } : { vmId, tap, antiSpoof };
}

/** Whether the kernel holds a VM to just what is wanted. */
export function holdsTo(seen: SeenPolicy | "damaged" | undefined, wanted: VmPolicy): boolean {
  if (seen === undefined || seen === "damaged" || seen.tap !== wanted.tap) return false;
  if (!seen.antiSpoof || !wanted.antiSpoof) return seen.antiSpoof === wanted.antiSpoof;
  const text = ({ mac, mode, addresses, leaseSeconds }: VmPolicy) =>
    JSON.stringify([mac, mode, addresses.toSorted(), leaseSeconds ?? null]);
  return text(seen) === text(wanted);
}
