import type {
  ConsoleTail,
  CreateVmRequest,
  EventListQuery,
  Manifest,
  NumberedVmEvent,
  Plugin,
  RunRequest,
  RunResult,
  SystemInfo,
  SystemSummary,
  Vm,
  VmConfigPatch,
  VmConfigState,
  VmConfigVersion,
  VmListQuery,
  VmLogLine,
  VmUsageReading,
} from "@volant/contract";
import { TOTAL_COUNT_HEADER, type RouteId } from "@volant/contract/endpoints";
import { VolantError } from "@volant/contract/errors";
import type { ExecStart } from "@volant/contract/exec-frames";
import { type CallOptions, type MakeOptions, type OutcomeOptions, waitQuery } from "./call-options.ts";
import { KeyClient } from "./keys.ts";
import { ArtifactClient } from "./artifacts.ts";
import { openConsole, type VmConsole } from "./console.ts";
import { DeploymentClient } from "./deployments.ts";
import { streamEvents, type EventOptions } from "./events.ts";
import { FileClient } from "./files.ts";
import { streamLogs, type LogOptions } from "./logs.ts";
import { openProcess, type VmProcess } from "./process.ts";
import { newKey } from "./retry.ts";
import { Transport, type AnswerHeaders, type AnyCall, type TransportOptions, type UploadBody } from "./transport.ts";
import { VfioClient } from "./vfio.ts";
import { waitForVm, type WaitOptions } from "./wait.ts";
import { WorkloadClient } from "./workloads.ts";

/** Whether a call ended before what it waited for: whoever did not want to wait expects no other. @throws VolantError `timeout` */
function checkOutcome(status: number, what: string, { waitMs = 0 }: OutcomeOptions, vm: Vm): void {
  if (status !== 202 || waitMs === 0) return;
  const why = vm.reason === undefined ? "" : `: ${vm.reason}`;
  throw new VolantError("timeout", `VM "${vm.name}" is not ${what} after ${waitMs / 1000} s${why}`);
}

export interface VmPage {
  readonly vms: readonly Vm[];
  /** Count before paging. */
  readonly total: number;
}

export class VmClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** VMs that match, and how many there are before paging. */
  async list(query: VmListQuery = {}, options: CallOptions = {}): Promise<VmPage> {
    const { body, headers } = await this.#transport.call("vms.list", { query, ...options });
    return { vms: body, total: Number(headers.get(TOTAL_COUNT_HEADER) ?? body.length) };
  }

  /** @throws VolantError `not_found` */
  async get(name: string, options: CallOptions = {}): Promise<Vm> {
    return (await this.#transport.call("vms.get", { params: { name }, ...options })).body;
  }

  /** The VM as recorded: `pending`. {@link wait} tells when it runs. @throws VolantError `invalid`, `exists`, `not_found`, … */
  async create(request: CreateVmRequest, { signal, key = newKey() }: MakeOptions = {}): Promise<Vm> {
    return (await this.#transport.call("vms.create", { body: request, signal, key })).body;
  }

  /** Resolves when nothing of the VM is left. @throws VolantError `not_found`, `timeout` */
  async delete(name: string, options: OutcomeOptions = {}): Promise<void> {
    const input = { params: { name }, query: waitQuery(options), signal: options.signal };
    const { status, body } = await this.#transport.call("vms.delete", input);
    checkOutcome(status, "gone", options, body as unknown as Vm);
  }

  /** @throws VolantError `not_found`, `wrong_state` when it is started already */
  async start(name: string, options: CallOptions = {}): Promise<Vm> {
    return (await this.#transport.call("vms.start", { params: { name }, ...options })).body;
  }

  /** Resolves when it is stopped. @throws VolantError `not_found`, `timeout` */
  async stop(name: string, options: OutcomeOptions = {}): Promise<Vm> {
    const input = { params: { name }, query: waitQuery(options), signal: options.signal };
    const { status, body } = await this.#transport.call("vms.stop", input);
    checkOutcome(status, "stopped", options, body);
    return body;
  }

  /** @throws VolantError `not_found` */
  async restart(name: string, options: CallOptions = {}): Promise<Vm> {
    return (await this.#transport.call("vms.restart", { params: { name }, ...options })).body;
  }

  /** The VM's configuration as last written. @throws VolantError `not_found` */
  async config(name: string, options: CallOptions = {}): Promise<VmConfigState> {
    return (await this.#transport.call("vms.config.get", { params: { name }, ...options })).body;
  }

  /**
   * Changes the VM's configuration: a field that is absent or null is left alone, any other replaces what was there, whole. In force from the next start;
   * `pending` says whether one is needed. @throws VolantError as {@link create} does, and `not_found`, `wrong_state`
   */
  async setConfig(name: string, patch: VmConfigPatch, options: CallOptions = {}): Promise<VmConfigState> {
    return (await this.#transport.call("vms.config.patch", { params: { name }, body: patch, ...options })).body;
  }

  /** Versions of the VM's configuration, newest first. @throws VolantError `not_found` */
  async configHistory(
    name: string,
    { limit, ...options }: CallOptions & { readonly limit?: number | undefined } = {},
  ): Promise<readonly VmConfigVersion[]> {
    const query = limit === undefined ? {} : { limit };
    return (await this.#transport.call("vms.config.history", { params: { name }, query, ...options })).body;
  }

  /** The VM's serial console, over a WebSocket; `GuestStreams` has it as a stream of Node's. @throws VolantError `not_found`, `guest_unreachable` */
  console(name: string, options: CallOptions = {}): Promise<VmConsole> {
    return openConsole(this.#transport, name, options);
  }

  /**
   * Starts a program in the guest, over a WebSocket; with a `tty` it is a shell's way in. `GuestStreams` has it as streams of Node's.
   *
   *     const process = await volant.vms.exec("web-1", { argv: ["uname", "-r"] });
   *     await process.stdin.close();
   *     for await (const bytes of process.stdout) show(bytes);
   *     const exit = await process.exit;
   *
   * @throws VolantError `not_found`, `wrong_state`, `guest_unreachable`, `too_large`
   */
  exec(name: string, start: ExecStart, options: CallOptions = {}): Promise<VmProcess> {
    return openProcess(this.#transport, name, start, options);
  }

  /** What VMs use of the host now. Rates are the difference of two readings, by `clock_ms`. */
  async usage(options: CallOptions = {}): Promise<VmUsageReading> {
    return (await this.#transport.call("usage.vms", options)).body;
  }

  /**
   * Runs a program in the guest to its end; what it prints is bounded. {@link exec} has the streams.
   *
   * @throws VolantError `not_found` (the VM, or the program), `forbidden` (it can't be run), `wrong_state`, `guest_unreachable`
   */
  async run(name: string, request: RunRequest, options: CallOptions = {}): Promise<RunResult> {
    return (await this.#transport.call("vms.run", { params: { name }, body: request, ...options })).body;
  }

  /** The last lines of the VM's serial console. @throws VolantError `not_found` */
  async consoleTail(
    name: string,
    { lines, ...options }: CallOptions & { readonly lines?: number | undefined } = {},
  ): Promise<ConsoleTail> {
    const query = lines === undefined ? {} : { lines };
    return (await this.#transport.call("vms.console.tail", { params: { name }, query, ...options })).body;
  }

  /** What a VM's workload has printed, as it comes. @throws VolantError `not_found`, `rate_limited` */
  logs(name: string, options: LogOptions = {}): AsyncIterable<VmLogLine> {
    return streamLogs(this.#transport, name, options);
  }

  /** Waits until the VM has a status, by default `running`. @throws VolantError `not_found`, `wrong_state` with the reason, `timeout` */
  async wait(name: string, options: WaitOptions = {}): Promise<Vm> {
    return waitForVm(this.#transport, name, options);
  }
}

export class PluginClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Names of the installed plugins. */
  async list(options: CallOptions = {}): Promise<readonly string[]> {
    return (await this.#transport.call("plugins.list", options)).body.plugins;
  }

  /** @throws VolantError `not_found` */
  async get(plugin: string, options: CallOptions = {}): Promise<Plugin> {
    return (await this.#transport.call("plugins.get", { params: { plugin }, ...options })).body;
  }

  /** Files that the manifest names must have been handed over by {@link ImageClient.put}. @throws VolantError `exists`, `invalid`, … */
  async install(manifest: Manifest, { signal, key = newKey() }: MakeOptions = {}): Promise<Plugin> {
    return (await this.#transport.call("plugins.install", { body: manifest, signal, key })).body;
  }

  /** @throws VolantError `not_found`, `disabled` */
  async manifest(plugin: string, options: CallOptions = {}): Promise<Manifest> {
    return (await this.#transport.call("plugins.manifest", { params: { plugin }, ...options })).body;
  }

  /** @throws VolantError `not_found` */
  async setEnabled(plugin: string, enabled: boolean, options: CallOptions = {}): Promise<Plugin> {
    return (await this.#transport.call("plugins.setEnabled", { params: { plugin }, body: { enabled }, ...options }))
      .body;
  }

  /** @throws VolantError `not_found`, `in_use` while a VM needs it */
  async remove(plugin: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.call("plugins.remove", { params: { plugin }, ...options });
  }
}

export class ImageClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Whether volantd has the file with this checksum (`sha256:<hex>`). */
  async has(checksum: string, options: CallOptions = {}): Promise<boolean> {
    try {
      await this.#transport.request("images.has", { params: { checksum }, ...options });
      return true;
    } catch (error) {
      if (error instanceof VolantError && error.code === "not_found") return false;
      throw error;
    }
  }

  /** Hands a file over. An iterable is sent as it comes and never held whole, but in browsers, where a Blob of it is made. @throws VolantError `checksum_mismatch`, `too_large` */
  async put(checksum: string, content: UploadBody, options: CallOptions = {}): Promise<void> {
    await this.#transport.call("images.put", { params: { checksum }, upload: content, ...options });
  }
}

export class SystemClient {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Resolves when volantd answers and accepts the key. */
  async status(options: CallOptions = {}): Promise<void> {
    await this.#transport.call("system.status", options);
  }

  /** Version, addresses, network and hypervisor of the host. */
  async info(options: CallOptions = {}): Promise<SystemInfo> {
    return (await this.#transport.call("system.info", options)).body;
  }

  /**
   * Everything that volantd remembers, as the bytes of one SQLite database; the stream fails when the transfer breaks off. It may hold secrets of VMs.
   *
   * @throws VolantError `in_use` while another backup is being made
   */
  async backup(options: CallOptions = {}): Promise<ReadableStream<Uint8Array>> {
    return (await this.#transport.request("system.backup", options)).body as ReadableStream<Uint8Array>;
  }

  /** Counts of VMs and plugins. */
  async summary(options: CallOptions = {}): Promise<SystemSummary> {
    return (await this.#transport.call("system.summary", options)).body;
  }
}

/**
 * Client of one volantd, for Node and browsers.
 *
 *     const volant = new VolantClient({ baseUrl: "http://127.0.0.1:7777" });
 *     await volant.vms.create({ name: "web-1", plugin: "hello" });
 *     const vm = await volant.vms.wait("web-1", { timeoutMs: 60_000 });
 *
 * Every expected failure is a VolantError with a code, a sentence and often a hint.
 */
export class VolantClient {
  readonly #transport: Transport;
  readonly vms: VmClient;
  readonly deployments: DeploymentClient;
  readonly plugins: PluginClient;
  readonly artifacts: ArtifactClient;
  readonly images: ImageClient;
  readonly system: SystemClient;
  readonly files: FileClient;
  readonly keys: KeyClient;
  readonly workloads: WorkloadClient;
  readonly vfio: VfioClient;

  /** @throws VolantError `invalid` when the base URL is none */
  constructor(options: TransportOptions) {
    this.#transport = new Transport(options);
    this.vms = new VmClient(this.#transport);
    this.deployments = new DeploymentClient(this.#transport);
    this.plugins = new PluginClient(this.#transport);
    this.artifacts = new ArtifactClient(this.#transport);
    this.images = new ImageClient(this.#transport);
    this.system = new SystemClient(this.#transport);
    this.files = new FileClient(this.#transport);
    this.keys = new KeyClient(this.#transport);
    this.vfio = new VfioClient(this.#transport);
    this.workloads = new WorkloadClient(this.#transport);
  }

  /** Base URL without a slash at its end. */
  get baseUrl(): string {
    return this.#transport.baseUrl;
  }

  /**
   * Calls any route by its id, for programs that are told at run time which one. Not for files and streams of events.
   *
   * @throws VolantError what the route refuses with
   */
  async call(id: RouteId, call: AnyCall): Promise<{ readonly body: unknown; readonly headers: AnswerHeaders }> {
    const { body, headers } = await this.#transport.call(id, call as never);
    return { body, headers };
  }

  /**
   * What happens to VMs from now on (or after an id, or since a time), over as many connections as it takes: each event once and in order, also over a
   * restart of volantd. Lines of logs alone may be missing after a break; {@link VmClient.logs} has them all. Ends by the signal, or when the reader stops.
   */
  events(options: EventOptions = {}): AsyncIterable<NumberedVmEvent> {
    return streamEvents(this.#transport, options);
  }

  /** What happened to VMs, as far as volantd keeps it, the newest first. `before` the last one's id leads to the next page. @throws VolantError `invalid` */
  async pastEvents(query: EventListQuery = {}, options: CallOptions = {}): Promise<readonly NumberedVmEvent[]> {
    return (await this.#transport.call("events.list", { query, ...options })).body;
  }
}
