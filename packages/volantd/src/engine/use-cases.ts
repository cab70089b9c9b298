/** What the API may ask of the engine. Handlers see these and nothing behind them. */
import type { Duplex, Readable } from "node:stream";
import type {
  ApiKey,
  CreateApiKeyRequest,
  ArtifactDeleteQuery,
  CreateArtifactRequest,
  CreateDeploymentRequest,
  CreatedApiKey,
  CreateVmRequest,
  Deployment,
  DeploymentPatch,
  DeploymentVersion,
  FilesWritten,
  Manifest,
  Plugin,
  Scope,
  PluginArtifact,
  SystemInfo,
  SystemSummary,
  VfioDevice,
  VfioDeviceList,
  VfioGroupList,
  VfioGroupPaths,
  VfioVerdict,
  Vm,
  VmConfigPatch,
  VmConfigState,
  VmConfigVersion,
  VmEvent,
  VmEventGap,
  VmEventType,
  VmLogLine,
  VmStatus,
  VmUsageReading,
} from "@volant/contract";

export interface VmFilter {
  readonly status?: readonly VmStatus[];
  readonly runtime?: string;
  readonly plugin?: string;
  /** Part of the name, case-insensitive. */
  readonly q?: string;
  readonly limit?: number;
  readonly offset?: number;
  readonly sort?: "name" | "status" | "runtime" | "created_at" | "updated_at";
  readonly order?: "asc" | "desc";
}

/** How long to wait for an outcome. */
export interface Patience {
  readonly timeoutMs: number;
  /** Nobody is there for the outcome any more; what was asked for goes on. */
  readonly signal?: AbortSignal | undefined;
}

export interface VmUseCases {
  /**
   * Resolves once the intent is durable.
   *
   * @param key its `Idempotency-Key`: a repetition gets the VM as it was first made, and makes none
   * @throws VolantError `invalid`, `exists`, `not_found`, `disabled`, `exhausted`, `not_ready`, `not_supported`, `key_reused`
   */
  create(request: CreateVmRequest, key?: string): Promise<Vm>;
  /**
   * Waits for what was asked for. `running`: it runs, or has ended and is not started again by itself. `settled`: nothing is left to do for it.
   *
   * @returns whether it is so; false when time was up, or the signal aborted
   * @throws VolantError `not_found` and `wrong_state` when it was deleted, or stopped, meanwhile
   */
  wait(name: string, goal: "running" | "settled", patience: Patience): Promise<boolean>;
  /** Reads anew what {@link list} and {@link get} show of what is counted. */
  refresh(): Promise<void>;
  /** `total` counts before paging. */
  list(filter: VmFilter): { readonly vms: readonly Vm[]; readonly total: number };
  /** @throws VolantError `not_found` */
  get(name: string): Vm;
  /** Resolves when process, tap, neighbour, files and lease are gone. @throws VolantError `not_found`, `timeout` */
  delete(name: string, patience?: Patience): Promise<void>;
  /** Resolves once the intent is durable. @throws VolantError `not_found`, `wrong_state` when it is started already */
  start(name: string): Promise<Vm>;
  /** Resolves when it is stopped; of a stopped VM at once. @throws VolantError `not_found`, `timeout` */
  stop(name: string, patience?: Patience): Promise<Vm>;
  /** Resolves once the intent is durable. @throws VolantError `not_found` */
  restart(name: string): Promise<Vm>;
}

export interface ConfigUseCases {
  /** @throws VolantError `not_found` */
  get(name: string): VmConfigState;
  /** Resolves once the change is durable. @throws VolantError as a VM's creation does, and `not_found`, `wrong_state` */
  patch(name: string, patch: VmConfigPatch): Promise<VmConfigState>;
  /** Newest first. @throws VolantError `not_found` */
  history(name: string, limit?: number): readonly VmConfigVersion[];
}

export interface DeploymentUseCases {
  list(): readonly Deployment[];
  /** @throws VolantError `not_found` */
  get(name: string): Deployment;
  /**
   * Resolves once the intent is durable.
   *
   * @param key its `Idempotency-Key`: a repetition gets the deployment as it was first made, and makes none
   * @throws VolantError as a VM's creation does; `exists` also for a name that a replica needs
   */
  create(request: CreateDeploymentRequest, key?: string): Promise<Deployment>;
  /**
   * Waits until all replicas have the wanted version and are ready, or the roll-out goes no further: it has failed, or is paused.
   *
   * @returns whether it is so; false when time was up, or the signal aborted
   * @throws VolantError `not_found` when it was deleted meanwhile
   */
  wait(name: string, patience: Patience): Promise<boolean>;
  /** Resolves once the change is durable. @throws VolantError as {@link create} does, and `not_found`, `wrong_state` */
  patch(name: string, patch: DeploymentPatch): Promise<Deployment>;
  /** @throws VolantError `not_found` (the deployment, or the version), `wrong_state`, `invalid` */
  rollback(name: string, version: number): Promise<Deployment>;
  /** Newest first. @throws VolantError `not_found` */
  history(name: string, limit?: number): readonly DeploymentVersion[];
  /** Resolves when nothing of any replica is left. @throws VolantError `not_found`, `timeout` */
  delete(name: string, patience?: Patience): Promise<void>;
}

export interface PluginUseCases {
  /** Files named in the manifest must be in the image store, or in volantd's own folders. @throws VolantError `exists`, `invalid`, `checksum_mismatch`, `not_supported`, `key_reused` */
  install(manifest: Manifest, key?: string): Promise<Plugin>;
  list(): readonly Plugin[];
  get(name: string): Plugin;
  /** @throws VolantError `disabled` */
  manifest(name: string): Manifest;
  setEnabled(name: string, enabled: boolean): Plugin;
  /** @throws VolantError `in_use` while a VM needs it */
  remove(name: string): Promise<void>;
}

/** Files of plugins. All throw VolantError `not_found` where there is no such plugin. */
export interface ArtifactUseCases {
  /** Those of the manifest first. */
  list(plugin: string, version?: string): Promise<readonly PluginArtifact[]>;
  /** Of all versions the one that was written last, unless one is named. */
  get(plugin: string, name: string, version?: string): Promise<PluginArtifact>;
  /** @throws VolantError `exists` (it is the manifest's), `invalid`, `checksum_mismatch`, `not_supported` (an address) */
  create(plugin: string, request: CreateArtifactRequest): Promise<PluginArtifact>;
  /** @throws VolantError `in_use` (it is the manifest's) */
  delete(plugin: string, which: ArtifactDeleteQuery): Promise<void>;
}

export interface ImageUseCases {
  has(checksum: string): Promise<boolean>;
  put(checksum: string, content: Readable): Promise<void>;
}

/** PCI devices of the host, by address. All throw VolantError `not_found` for one that it has not, but {@link VfioUseCases.validate}. */
export interface VfioUseCases {
  info(address: string): Promise<VfioDevice>;
  validate(addresses: readonly string[], allowlist?: readonly string[]): Promise<VfioVerdict>;
  groups(addresses: readonly string[]): Promise<VfioGroupList>;
  /** All of them, or none. @throws VolantError `in_use`, `wrong_state` (the kernel does not let them go) */
  bind(addresses: readonly string[]): Promise<VfioDeviceList>;
  unbind(addresses: readonly string[]): Promise<VfioDeviceList>;
  /** @throws VolantError `wrong_state` for one that is not bound */
  paths(addresses: readonly string[]): Promise<VfioGroupPaths>;
}

export interface SystemUseCases {
  info(): SystemInfo;
  summary(): SystemSummary;
}

export interface ReadinessUseCases {
  /** @throws VolantError `not_ready` with what keeps volantd from its work */
  check(): Promise<void>;
}

export interface MetricsUseCases {
  /** All of them, in Prometheus' text format. */
  metrics(): Promise<string>;
}

export interface NumberedEvent {
  /** Grows from event to event, over restarts, too; what `Last-Event-ID` carries. */
  readonly id: number;
  readonly event: VmEvent;
}

/** Which events; an absent field means any. */
export interface EventFilter {
  readonly names?: readonly string[] | undefined;
  readonly types?: readonly VmEventType[] | undefined;
  /** Milliseconds since 1970. */
  readonly sinceMs?: number | undefined;
}

/** A range of the events that are kept. */
export interface EventRange {
  readonly after?: number | undefined;
  /** Up to and with this id. */
  readonly through?: number | undefined;
  readonly filter?: EventFilter | undefined;
  readonly limit: number;
  /** The newest first, where there are more than `limit` the newest ones. */
  readonly newest?: boolean;
}

/** Says that events are missing here. */
export interface EventGap {
  readonly gap: VmEventGap;
}

export interface EventSubscription extends AsyncIterable<NumberedEvent | EventGap> {
  /** What the reader has to name to go on after all that it has taken: what it does not want to know of included. */
  readonly position: number;
}

export interface SubscribeOptions {
  /** Kept events after this one come first. */
  readonly afterId?: number | undefined;
  /** Its time says which kept events come first, where `afterId` does not; it says nothing of live ones. */
  readonly filter?: EventFilter | undefined;
  readonly signal: AbortSignal;
}

export interface EventListOptions {
  readonly filter?: EventFilter | undefined;
  readonly after?: number | undefined;
  readonly before?: number | undefined;
  readonly limit: number;
}

export interface EventFeed {
  /**
   * Kept events where they are asked for, after a gap where some that were asked for are gone; then live ones until the signal aborts. In force when this
   * returns. A reader that falls too far behind ends with `rate_limited`.
   */
  subscribe(options: SubscribeOptions): EventSubscription;
  /** Of the kept ones, the newest first. */
  list(options: EventListOptions): readonly NumberedEvent[];
}

/** How the proxy reaches one workload. */
export interface Workload {
  /** Host and port by which it goes. */
  readonly authority: string;
  /** One TCP connection to it. @throws VolantError `guest_unreachable` when nothing listens there */
  connect(signal: AbortSignal): Promise<Duplex>;
}

/** Into a guest, by way of its agent. All throw VolantError `not_found`, `wrong_state` (it is stopped), `guest_unreachable`, `exhausted`. */
export interface ReachUseCases {
  workload(name: string): Workload;
  /** One TCP connection to a port of the guest. */
  forward(name: string, port: number, signal: AbortSignal): Promise<Duplex>;
  /** A stream of exec frames, see the contract. */
  exec(name: string, signal: AbortSignal): Promise<Duplex>;
  /** Resolves when the agent says that it is well. */
  agentHealth(name: string, signal: AbortSignal): Promise<void>;
}

/** Serial consoles. */
export interface ConsoleUseCases {
  /**
   * What is printed from now on, and takes what is typed; any number may share a console. It ends with the VM's run, and with `rate_limited` for a
   * reader that is too slow.
   *
   * @throws VolantError `not_found`, `wrong_state`, `guest_unreachable`
   */
  open(name: string, signal: AbortSignal): Promise<Duplex>;
}

/** What a workload answers to an action. */
export interface ActionAnswer {
  /** Name of the VM that answered. */
  readonly vm: string;
  readonly status: number;
  readonly contentType: string | undefined;
  readonly body: Buffer;
}

/** Asking workloads. All throw what {@link ReachUseCases} throws, and `timeout`. */
export interface WorkloadUseCases {
  /** The JSON text of its OpenAPI document. @throws VolantError `not_found` where there is none */
  openApi(name: string, signal: AbortSignal): Promise<string>;
  /** @param input JSON, or undefined. @throws VolantError `not_found` (also when the VM runs another plugin), `invalid` */
  vmAction(name: string, plugin: string, action: string, input: unknown, signal: AbortSignal): Promise<ActionAnswer>;
  /** On the VM that is named, else on the first by name that runs. @throws VolantError as {@link vmAction}, and `disabled` */
  pluginAction(
    plugin: string,
    action: string,
    input: unknown,
    options: { readonly vm?: string | undefined; readonly signal: AbortSignal },
  ): Promise<ActionAnswer>;
}

/** What is written into a guest. */
export interface GuestUpload {
  readonly path: string;
  /** A tar archive, or one file's bytes with its mode in octal. */
  readonly kind: "archive" | { readonly mode: string };
  /** Not closed, whatever becomes of it. */
  readonly content: Readable;
}

/** Files of guests. Both throw what {@link ReachUseCases} throws, and the guest's refusal. */
export interface FileUseCases {
  /** A tar archive of a file or directory, as it comes. */
  read(name: string, path: string, signal: AbortSignal): Promise<Readable>;
  write(name: string, upload: GuestUpload, signal: AbortSignal): Promise<FilesWritten>;
}

export interface StoredLogLine {
  readonly line: VmLogLine;
  /** Where the log goes on after this line; what `Last-Event-ID` carries. */
  readonly cursor: string;
}

export interface LogOptions {
  /** Only so many of the last lines. */
  readonly tail?: number | undefined;
  /** Lines after this place. One that the log no longer has means all lines, after a remark. */
  readonly after?: string | undefined;
  /** Go on with new lines until aborted. */
  readonly follow: boolean;
  readonly signal: AbortSignal;
}

export interface LogUseCases {
  /**
   * What a VM's workload has printed, also while the VM is stopped. A reader that falls so far behind that lines are gone before it has
   * read them ends with `rate_limited`; one of a VM that is deleted with `not_found`.
   *
   * @throws VolantError `not_found`, before anything is read
   */
  read(name: string, options: LogOptions): AsyncIterable<StoredLogLine>;
}

/** Serial consoles, as they are kept. */
export interface ConsoleLogUseCases {
  /** The last lines of a VM's console, fit to be shown; also of a VM that is stopped. @throws VolantError `not_found` */
  tail(name: string, lines?: number): Promise<readonly string[]>;
}

export interface DurabilityUseCases {
  /** Resolves once everything that was written down so far would outlive a power failure. @throws VolantError `not_ready` when the disk fails */
  settled(): Promise<void>;
}

export interface BackupUseCases {
  /**
   * Everything that volantd remembers, as one SQLite file. Its taker reads or destroys it.
   *
   * @throws VolantError `in_use` while another one is being made, `not_ready` without room for it
   */
  backup(): Promise<{ readonly sizeBytes: number; readonly content: Readable }>;
}

/** Whose key a request has. */
export interface KeyHolder {
  /** Never reused. */
  readonly id: number;
  readonly name: string;
  readonly scope: Scope;
}

export interface KeyUseCases {
  /** How many there are. */
  readonly count: number;
  /** @throws VolantError `exists`, `exhausted` */
  create(request: CreateApiKeyRequest): CreatedApiKey;
  /** By name. */
  list(): readonly ApiKey[];
  /** @throws VolantError `not_found` */
  revoke(name: string): void;
  /** Takes as long for a wrong key as for a right one. */
  find(key: string): KeyHolder | undefined;
  /** Notes that a request came with it. */
  used(id: number): void;
  /** Calls `told` with the id of each key that is revoked. */
  onRevoked(told: (id: number) => void): void;
}

export interface UsageUseCases {
  /** Of all VMs that have a hypervisor. @throws VolantError `exhausted` */
  read(): Promise<VmUsageReading>;
}

export interface UseCases {
  readonly keys: KeyUseCases;
  readonly backups: BackupUseCases;
  readonly durability: DurabilityUseCases;
  readonly files: FileUseCases;
  readonly logs: LogUseCases;
  readonly consoleLogs: ConsoleLogUseCases;
  readonly vms: VmUseCases;
  readonly configs: ConfigUseCases;
  readonly deployments: DeploymentUseCases;
  readonly reach: ReachUseCases;
  readonly workloads: WorkloadUseCases;
  readonly consoles: ConsoleUseCases;
  readonly plugins: PluginUseCases;
  readonly artifacts: ArtifactUseCases;
  readonly images: ImageUseCases;
  readonly system: SystemUseCases;
  readonly readiness: ReadinessUseCases;
  readonly metrics: MetricsUseCases;
  readonly vfio: VfioUseCases;
  readonly usage: UsageUseCases;
  readonly events: EventFeed;
}
