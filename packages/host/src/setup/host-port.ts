/** What set-up needs of a host. The Linux host is one; tests have another that lives in memory. */
import type { NftTable } from "./nft-table.ts";
import type { ObservedHost } from "./observed.ts";
import type { FirewallRule, Operation } from "./operation.ts";
import type { SetupRecord } from "./record.ts";

/** What of the firewall is asked for, and for which bridge other chains are judged. */
export type FirewallRequest =
  | { readonly kind: "iptables"; readonly bridge: string; readonly rules: readonly FirewallRule[] }
  | { readonly kind: "nftables"; readonly bridge: string; readonly table: NftTable };

export interface ObserveRequest {
  readonly firewall: FirewallRequest;
  /** The unit's file; empty when there is none to look at. */
  readonly serviceFile: string;
  /** Links whose addresses and routes are asked for; `judge` asks as well whether it can be moved to a bridge. */
  readonly stations: readonly { readonly name: string; readonly judge: boolean }[];
  readonly record: SetupRecord | undefined;
  /** Settings that are asked for by name, as paths below /proc/sys. */
  readonly sysctls: readonly string[];
  /**
   * What forwarding changes is known, or of no account, as long as the record is of this kernel: then not all settings of all links need be read, of which
   * there are dozens a tap.
   */
  readonly forwardingKnown: boolean;
  /** Look also at what only an undo needs: settings that forwarding changed while it is on, chains while all rules are there. */
  readonly everything: boolean;
}

export interface SetupHost {
  /** Looks, and changes nothing. What can't be looked at is undefined in the answer. */
  observe(request: ObserveRequest): Promise<ObservedHost>;
  /** Carries one operation out; one that is already done is not an error. Rejects with a VolantError when the host refuses. */
  execute(operation: Operation): Promise<void>;
  /** Every net/ipv4/conf setting and the switch for forwarding, by path below /proc/sys. */
  readSysctls(): Promise<Readonly<Record<string, string>>>;
  readRecord(): Promise<SetupRecord | undefined>;
  /** On the disk when it resolves. Makes the folder if need be. */
  writeRecord(record: SetupRecord): Promise<void>;
  /** Folders that {@link writeRecord} would have to make, the outermost first. */
  missingFolders(): Promise<readonly string[]>;
  /**
   * Removes the rules that hold guests, and what their frames go through, unless a VM of any installation depends on them. They
   * are of volantd's making and in no record.
   */
  removeGuestPolicy(): Promise<void>;
  /** Removes the record, and those of the folders that are empty. */
  removeRecord(createdFolders: readonly string[]): Promise<void>;
  /** Runs the work while no other set-up of this work folder runs. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
}
