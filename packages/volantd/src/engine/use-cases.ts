/** What the API may ask of the engine. Handlers see these and nothing behind them. */
import type { Duplex, Readable } from "node:stream";
import type {
  CreateVmRequest,
  Manifest,
  Plugin,
  SystemInfo,
  SystemSummary,
  Vm,
  VmEvent,
  VmStatus,
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

export interface VmUseCases {
  /** Resolves once the intent is durable. @throws VolantError `invalid`, `exists`, `not_found`, `disabled`, `exhausted`, `not_ready`, `not_supported` */
  create(request: CreateVmRequest): Promise<Vm>;
  /** `total` counts before paging. */
  list(filter: VmFilter): { readonly vms: readonly Vm[]; readonly total: number };
  /** @throws VolantError `not_found` */
  get(name: string): Vm;
  /** Resolves when process, tap, neighbour, files and lease are gone. @throws VolantError `not_found` */
  delete(name: string): Promise<void>;
  /** Resolves once the intent is durable. @throws VolantError `not_found`, `wrong_state` when it is started already */
  start(name: string): Promise<Vm>;
  /** Resolves when it is stopped; of a stopped VM at once. @throws VolantError `not_found`, `timeout` */
  stop(name: string): Promise<Vm>;
  /** Resolves once the intent is durable. @throws VolantError `not_found` */
  restart(name: string): Promise<Vm>;
}

export interface PluginUseCases {
  /** Files named in the manifest must be in the image store, or in volantd's own folders. @throws VolantError `exists`, `invalid`, `checksum_mismatch`, `not_supported` */
  install(manifest: Manifest): Promise<Plugin>;
  list(): readonly Plugin[];
  get(name: string): Plugin;
  /** @throws VolantError `disabled` */
  manifest(name: string): Manifest;
  setEnabled(name: string, enabled: boolean): Plugin;
  /** @throws VolantError `in_use` while a VM needs it */
  remove(name: string): Promise<void>;
}

export interface ImageUseCases {
  has(checksum: string): Promise<boolean>;
  put(checksum: string, content: Readable): Promise<void>;
}

export interface SystemUseCases {
  info(): SystemInfo;
  summary(): SystemSummary;
}

export interface NumberedEvent {
  /** Grows by one per event; what `Last-Event-ID` carries. */
  readonly id: number;
  readonly event: VmEvent;
}

export interface EventFeed {
  /** Events after `afterId` where it is given and still remembered, then live ones until the signal aborts. A reader that falls too far behind ends with an error event. */
  subscribe(options: { readonly afterId?: number; readonly signal: AbortSignal }): AsyncIterable<NumberedEvent>;
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

export interface UseCases {
  readonly vms: VmUseCases;
  readonly reach: ReachUseCases;
  readonly plugins: PluginUseCases;
  readonly images: ImageUseCases;
  readonly system: SystemUseCases;
  readonly events: EventFeed;
}
