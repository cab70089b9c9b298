/** The port to the host's network: taps, neighbour entries, and the bridge that `volar setup` made. */
import type { BridgeState, ObservedNetwork, ObservedTap } from "../plan/observed.ts";

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

/** What one look at the host's network showed. */
export interface NetworkView {
  /** Of the managed bridge. */
  readonly network: ObservedNetwork;
  /** All other bridges, by name. */
  readonly otherBridges: ReadonlyMap<string, BridgeState>;
  /** Links that bear this installation's mark. */
  readonly taps: readonly MarkedTap[];
  /** Names of all other links: a tap of ours can't have one of these. */
  readonly foreignNames: ReadonlySet<string>;
  readonly neighbours: readonly BridgeNeighbour[];
}

export interface TapRequest {
  readonly vmId: number;
  readonly name: string;
  /** The only user who may open it. */
  readonly uid: number;
  /** Default: the managed bridge. */
  readonly bridge?: string | undefined;
}

export interface NetworkManager {
  /** Names to try for a VM's tap, best first. */
  tapNames(vmName: string): Iterable<string>;
  /** Says now what would keep a VM's network from being made. `bridge` is the managed one by default. @throws VolantError `not_ready`, `invalid` */
  checkReady(tap: string, bridge?: string): Promise<void>;
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
  /** Joins it to the bridge and brings it up. */
  repairTap(tap: Pick<ObservedTap, "index">, bridge?: string): Promise<void>;
  /** By index, and only while it still has its name. Gone already is no error. */
  deleteTap(tap: Pick<ObservedTap, "index" | "name">): Promise<void>;
  setNeighbour(neighbour: BridgeNeighbour): Promise<void>;
  /** Absent already is no error. */
  deleteNeighbour(address: number): Promise<void>;
  /**
   * Calls back when something of ours may have changed: a VM's id where it is known to be that VM's alone. Ends by the signal.
   */
  watch(onChange: (vmId: number | "all") => void, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}
