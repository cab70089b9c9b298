/**
 * The port to what must be remembered: what users asked for. What the host shows is never in here, but for `status` and `reason`, which are kept
 * for lists to filter and sort by.
 *
 * Every method is one transaction, in force and seen by all when it returns, and a kill of this process does not undo it. It is *durable*, so that
 * a power failure does not undo it either, once {@link Store.settled} resolves that was called after it; writes become durable in their order. So
 * whoever answers a user awaits that before the answer, and whoever acts on the host for a row awaits it before the act. Events are
 * told once they are durable, too.
 *
 * A disk that is full or read-only, or a database that another program has locked, makes any method throw VolantError `not_ready`. Nothing has
 * changed then.
 */
import type { Readable } from "node:stream";
import type { Manifest, VmConfig, VmEvent, VmStatus } from "@volant/contract";
import type { AddressPool } from "../model/address.ts";
import type { Replica } from "../model/deployment.ts";
import type { PublishedPort, VmPort } from "../model/published-port.ts";
import type { Desired } from "../model/vm-state.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import type { EventRange, NumberedEvent, VmFilter } from "../engine/use-cases.ts";
import type { ArtifactStore } from "./artifact-store.ts";
import type { DeploymentStore } from "./deployment-store.ts";

/** Earlier versions took ids from the clock, ten for a millisecond: these are above all of those until the year 2286, and still have 15 digits. */
export const FIRST_EVENT_ID = 100_000_000_000_000;

export interface VmRecord {
  /** Never reused, not even after a deletion. */
  readonly id: number;
  /** What is in force: as of the last start that was asked for. */
  readonly spec: VmSpec;
  /** What it is to be from its next start on, where that differs. */
  readonly next?: VmSpec | undefined;
  /** Of the configuration as last written. */
  readonly configVersion: number;
  readonly mac: string;
  /** vsock context id, 3 or above. */
  readonly cid: number;
  readonly tap: string | undefined;
  readonly address: number | undefined;
  /** In the order of its settings. */
  readonly ports: readonly PublishedPort[];
  /** Absent for a VM of its own. */
  readonly replica?: Replica | undefined;
  readonly desired: Desired;
  readonly generation: number;
  readonly startedGeneration: number;
  readonly runningGeneration: number;
  readonly endedGeneration: number;
  readonly endedStatus: "stopped" | "crashed" | undefined;
  readonly endedReason: string | undefined;
  /** A word for what ended it, as {@link VmEnd} has it. */
  readonly endedCause: string | undefined;
  /** How often it was started again by itself since a user last started it. */
  readonly restarts: number;
  /** Ends in a row that were followed by such a start, or will be. */
  readonly failures: number;
  /** When it will be started again, in milliseconds since the epoch. */
  readonly restartAtMs: number | undefined;
  readonly status: VmStatus;
  readonly reason: string | undefined;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly updatedAt: string;
}

export interface NewVm {
  readonly spec: VmSpec;
  /** Names for its tap, the first free one is taken; undefined where it needs none. */
  readonly tapNames: Iterable<string> | undefined;
  /** Where its address comes from; undefined where it needs none. */
  readonly pool: AddressPool | undefined;
  readonly ports?: readonly PublishedPort[];
  readonly request?: KeyedRequest<VmRecord> | undefined;
  /** Given by the deployment that makes it. */
  readonly replica?: Replica | undefined;
}

/** What a user wants of a VM from now on. */
export interface Intent {
  readonly desired: Desired;
  /** A start or restart: the generation is raised. */
  readonly start: boolean;
  /** Where the VM's lease comes from if it needs one; given with a start. One outside this pool is exchanged for one inside it. */
  readonly pool?: AddressPool | undefined;
  /** Names for its tap if it needs one and has none yet; given with a start. */
  readonly tapNames?: Iterable<string> | undefined;
}

/** How a generation ended, and what follows. */
export interface EndRecord {
  readonly status: "stopped" | "crashed";
  readonly reason: string | undefined;
  readonly cause?: string | undefined;
  /** It is to be started again then, in milliseconds since the epoch, unless a user wants something else by now. */
  readonly restartAtMs?: number | undefined;
}

/** A request that has an `Idempotency-Key`: written down with what it makes, so that a repetition gets the same answer. */
export interface KeyedRequest<Made> {
  /** The route's id: keys of different routes have nothing to do with each other. */
  readonly scope: string;
  readonly key: string;
  /** Differs where the request does. */
  readonly fingerprint: string;
  /** The answer, as JSON. */
  readonly answer: (made: Made) => string;
}

/** What is known of events by their ids. */
export interface EventMarks {
  /** No id above it was given out. */
  readonly last: number;
  /** No event up to this id is kept any more; 0 where nothing was dropped so far. */
  readonly dropped: number;
  /** What was told between these two was in a database that a backup has taken the place of. */
  readonly lost?: { readonly after: number; readonly before: number };
}

/** A request that was answered. */
export interface AnsweredRequest {
  readonly fingerprint: string;
  /** JSON. */
  readonly answer: string;
}

/** A configuration that was written. */
export interface ConfigVersion {
  readonly id: number;
  readonly version: number;
  /** RFC 3339. */
  readonly updatedAt: string;
  readonly config: VmConfig;
}

/** A new configuration of a VM, with what it comes to. */
export interface ConfigChange {
  /** The version that it was made from. */
  readonly basis: number;
  readonly spec: VmSpec;
  /** Published from now on; absent: as before. */
  readonly ports?: readonly PublishedPort[];
}

export interface PluginRecord {
  readonly name: string;
  readonly enabled: boolean;
  readonly manifest: Manifest;
  readonly createdAt: string;
  readonly updatedAt: string;
}

export interface VmCounts {
  readonly total: number;
  readonly byStatus: Readonly<Record<string, number>>;
  readonly byRuntime: Readonly<Record<string, number>>;
}

/** The whole store as one SQLite file. */
export interface StoreBackup {
  readonly sizeBytes: number;
  /** To be read or destroyed by its taker. */
  readonly content: Readable;
}

export interface Store {
  /** Eight hexadecimal digits, made once at random; marks what is ours on this host. */
  readonly installation: string;
  readonly deployments: DeploymentStore;
  readonly artifacts: ArtifactStore;

  /** Takes the name, id, MAC, context id, tap name and lease. @throws VolantError `exists`, `exhausted`, `in_use` (a published port) */
  createVm(vm: NewVm): VmRecord;
  getVm(id: number): VmRecord | undefined;
  findVm(name: string): VmRecord | undefined;
  /** `total` counts before paging. */
  listVms(filter: VmFilter): { readonly vms: readonly VmRecord[]; readonly total: number };
  vmIds(): readonly number[];
  /** Id of the VM that an address is leased to; undefined where it is free or resting. */
  vmWithAddress(address: number): number | undefined;
  /** Of all VMs but those that are being deleted, which let go of theirs at once. */
  publishedPorts(): readonly VmPort[];
  /** @throws VolantError `in_use` when a port of this host is another VM's than this one's, also of one that is being deleted */
  checkPort(vmId: number | undefined, port: PublishedPort): void;
  countVms(): VmCounts;
  /** The newest first, at most `limit`. */
  configHistory(id: number, limit: number): readonly ConfigVersion[];
  /**
   * Writes a new version of a VM's configuration: in force at once where that needs no start, else from the next start on. An address that it
   * reserves is the VM's from now on. Undefined when the VM is gone or another version was written meanwhile: nothing is written then.
   *
   * @throws VolantError `exists`, `in_use` (a published port)
   */
  writeConfig(id: number, change: ConfigChange): VmRecord | undefined;
  /**
   * A start puts the configuration as last written in force, lease and tap name included.
   *
   * @throws VolantError `exhausted`, `exists` (the tap name that was asked for), `wrong_state` (its reserved address); Error when there is no such VM
   */
  setIntent(id: number, intent: Intent): VmRecord;
  /**
   * Gives a replica a version of its deployment's configuration, and has it started anew where that, or its end, makes it necessary. Undefined as for
   * {@link writeConfig}.
   *
   * @throws VolantError as {@link writeConfig} and {@link setIntent} do
   */
  updateReplica(id: number, version: number, change: ConfigChange, start: Intent): VmRecord | undefined;
  recordStarted(id: number, generation: number): void;
  recordRunning(id: number, generation: number): void;
  recordEnd(id: number, generation: number, end: EndRecord): void;
  /** Writes down when a VM that ended is started again; nothing where that is written already, or a user wants something else by now. */
  scheduleRestart(id: number, generation: number, restartAtMs: number): void;
  /**
   * Starts a VM again whose generation ended, as {@link setIntent} does. Undefined, and nothing is written, when a user has said something else since.
   *
   * @throws VolantError as {@link setIntent}
   */
  restartVm(id: number, generation: number, means: Pick<Intent, "pool" | "tapNames">): VmRecord | undefined;
  /** The next end is the first in a row. */
  forgetFailures(id: number, generation: number): void;
  /** What lists show. */
  recordStatus(id: number, status: VmStatus, reason: string | undefined): void;
  /** Gives everything that {@link createVm} took back. Its address rests before it is leased again. */
  deleteVm(id: number): void;

  /** @throws VolantError `exists` */
  createPlugin(manifest: Manifest, enabled: boolean, request?: KeyedRequest<PluginRecord>): PluginRecord;
  findPlugin(name: string): PluginRecord | undefined;
  listPlugins(): readonly PluginRecord[];
  /** Undefined when there is no such plugin. */
  setPluginEnabled(name: string, enabled: boolean): PluginRecord | undefined;
  /** What was answered to a request with this key; undefined when there was none, or it is too long ago. */
  answeredRequest(scope: string, key: string): AnsweredRequest | undefined;
  /** Whether there was one. @throws VolantError `in_use` while a VM was made from it */
  deletePlugin(name: string): boolean;
  /** Checksums and URLs of the files that VMs and plugins boot from, and of plugins' artifacts. */
  filesInUse(): readonly { readonly url: string; readonly checksum?: string }[];

  /**
   * Resolves when everything written so far is durable; at once where it is already. Given a VM, what was written of that one is enough, but for what
   * {@link recordStatus} wrote, on which nothing relies.
   *
   * @throws VolantError `not_ready` when the disk failed under it: it is in force all the same, and will be durable when the disk works again
   */
  settled(vmId?: number): Promise<void>;

  /**
   * A copy of everything as of when this resolves, made while others read and write.
   *
   * @throws VolantError `in_use` while another one is being made, `not_ready` where there is no room for it beside the database
   */
  backup(): Promise<StoreBackup>;

  /** What is written while `work` runs is one transaction: all of it, or, when it throws, nothing. It may not wait for anything. */
  together<T>(work: () => T): T;

  /**
   * The same a moment later, in one transaction with what others ask for meanwhile: many VMs' rows are written at the price of a few. Each is a part of its own: one
   * that throws is undone by itself. Resolves once it is committed.
   */
  shared<T>(work: () => T): Promise<T>;

  /**
   * Keeps an event, for a while: the newest ones, up to a number and an age. Told together with what it tells of, see {@link together}, it is neither lost nor
   * says what did not happen.
   *
   * @returns its id, which is above all ids that were ever given out
   */
  addEvent(event: VmEvent): number;
  /** An id in the same order for an event that is not kept. */
  takeEventId(): number;
  events(range: EventRange): readonly NumberedEvent[];
  eventMarks(): EventMarks;

  close(): void;
}
