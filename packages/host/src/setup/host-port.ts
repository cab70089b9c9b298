/** What set-up needs of a host. The Linux host is one; tests have another that lives in memory. */
import type { ObservedHost } from "./observed.ts";
import type { FirewallRule, Operation } from "./operation.ts";
import type { SetupRecord } from "./record.ts";

export interface ObserveRequest {
  /** Rules whose presence is asked for. */
  readonly rules: readonly FirewallRule[];
  /** The unit's file; empty when there is none to look at. */
  readonly serviceFile: string;
  readonly record: SetupRecord | undefined;
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
  /** Removes the record, and those of the folders that are empty. */
  removeRecord(createdFolders: readonly string[]): Promise<void>;
  /** Runs the work while no other set-up of this work folder runs. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
}
