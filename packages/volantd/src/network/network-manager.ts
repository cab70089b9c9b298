/** The port to the host's network: taps, neighbour entries, and the bridge that `volar setup` made. */
import type { BridgeState, ObservedNetwork, ObservedTap } from "../plan/observed.ts";
import type { SeenPolicy, VmPolicy } from "../plan/policy.ts";

export interface MarkedTap extends Omit<ObservedTap, "attached"> {
  readonly vmId: number;
  /** The bridge that it is a port of. */
  readonly bridge: string | undefined;
}

/** A permanent neighbour entry on the bridge. */
export interface BridgeNeighbour {
  readonly address: number;
  readonly mac: string;
}

/** The rules that hold guests to their addresses, as they are. */
export type PolicyView =
  | { readonly usable: false; readonly reason: string }
  | {
      readonly usable: true;
      readonly intact: boolean;
      /** Of this installation's VMs. */
      readonly entries: ReadonlyMap<number, SeenPolicy | "damaged">;
    };

/** What a DHCP server was seen to give a guest. */
export interface SeenLease {
  readonly address: string;
  /** Counted from the server's word, which may be some time ago. */
  readonly leaseSeconds: number;
}

/** What one look at the host's network showed. */
export interface NetworkView {
  /** Of the managed bridge. */
  readonly network: ObservedNetwork;
  /** All other bridges, by name; the managed one's further bridges count as the managed one. */
  readonly otherBridges: ReadonlyMap<string, BridgeState>;
  /** Links that bear this installation's mark. */
  readonly taps: readonly MarkedTap[];
  /** Names of all other links, and the installation whose mark they bear: a tap of ours can't have one of these. */
  readonly foreignNames: ReadonlyMap<string, string | undefined>;
  readonly neighbours: readonly BridgeNeighbour[];
  /** Absent where the network is not managed. */
  readonly policy?: PolicyView;
}

export interface TapRequest {
  readonly vmId: number;
  readonly name: string;
  /** The only user who may open it. */
  readonly uid: number;
  /** Default: the managed bridge. */
  readonly bridge?: string | undefined;
  /** Its guest's frames go through the guard before anything else sees them. */
  readonly guarded?: boolean | undefined;
}

export interface NetworkManager {
  /** Whether taps and the bridge that they join are Volant's to make. */
  readonly manages: boolean;
  /** Names to try for a VM's tap, best first. */
  tapNames(vmName: string): Iterable<string>;
  /**
   * Says now what would keep a VM's network from being made. `bridge` is the managed one by default; `guarded`: the guest is to be held
   * to its address. @throws VolantError `not_ready`, `invalid`
   */
  checkReady(tap: string, bridge?: string, guarded?: boolean): Promise<void>;
  /** Name of a link of this host, a tap of ours or another one, that has this MAC itself; in lower case. */
  linkWithMac(mac: string): Promise<string | undefined>;
  observe(): Promise<NetworkView>;
  bringBridgeUp(): Promise<void>;
  /**
   * Puts back what set-up recorded and somebody removed, and says what that was. Nothing where no set-up is recorded.
   *
   * @throws VolantError with the reason when it can't be put back; `in_use` while a set-up or an undo is at work
   */
  restoreHost(): Promise<readonly string[]>;
  /** @throws VolantError `exists` when a link of that name appeared meanwhile; it is left alone */
  createTap(request: TapRequest): Promise<void>;
  /** Joins it to the bridge and brings it up; has its guest's frames go through the guard, or no more. */
  repairTap(tap: Pick<ObservedTap, "index" | "name">, bridge?: string, guarded?: boolean): Promise<void>;
  /** By index, and only while it still has its name. Gone already is no error. */
  deleteTap(tap: Pick<ObservedTap, "index" | "name">): Promise<void>;
  /** Puts an entry in, or changes it. @throws VolantError `not_ready` */
  putPolicy(policy: VmPolicy): Promise<void>;
  /** Takes a VM's entry out, and forgets its lease. Absent already is no error. */
  removePolicy(vmId: number): Promise<void>;
  /** Watches what DHCP servers answer to the guest behind a tap; doing so already is no error. */
  followLease(guest: { readonly vmId: number; readonly link: number; readonly mac: string }): void;
  /** What {@link followLease} has seen and is still true. */
  lease(vmId: number): SeenLease | undefined;
  /** Reads anew how many frames of guests were dropped, in one call for all. Never fails: what can't be read stays as it was. */
  countDropped(): Promise<void>;
  /** As of the last {@link countDropped}; undefined where nothing is counted. */
  dropped(vmId: number): number | undefined;
  setNeighbour(neighbour: BridgeNeighbour): Promise<void>;
  /** Absent already is no error. */
  deleteNeighbour(address: number): Promise<void>;
  /**
   * Calls back when something of ours may have changed: a VM's id where it is known to be that VM's alone. Ends by the signal.
   */
  watch(onChange: (vmId: number | "all") => void, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}
