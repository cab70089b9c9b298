import type {
  CreateVmRequest,
  Manifest,
  Plugin,
  SystemInfo,
  SystemSummary,
  Vm,
  VmEvent,
  VmListQuery,
} from "@volant/contract";
import { TOTAL_COUNT_HEADER } from "@volant/contract/endpoints";
import { VolantError } from "@volant/contract/errors";
import { streamEvents, type EventOptions } from "./events.ts";
import { Transport, type TransportOptions, type UploadBody } from "./transport.ts";
import { waitForVm, type WaitOptions } from "./wait.ts";

export interface CallOptions {
  /** Gives the call up; it then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
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
  async create(request: CreateVmRequest, options: CallOptions = {}): Promise<Vm> {
    return (await this.#transport.call("vms.create", { body: request, ...options })).body;
  }

  /** Resolves when nothing of the VM is left. @throws VolantError `not_found` */
  async delete(name: string, options: CallOptions = {}): Promise<void> {
    await this.#transport.call("vms.delete", { params: { name }, ...options });
  }

  /** @throws VolantError `not_found`, `wrong_state` when it is started already */
  async start(name: string, options: CallOptions = {}): Promise<Vm> {
    return (await this.#transport.call("vms.start", { params: { name }, ...options })).body;
  }

  /** Resolves when it is stopped. @throws VolantError `not_found`, `timeout` */
  async stop(name: string, options: CallOptions = {}): Promise<Vm> {
    return (await this.#transport.call("vms.stop", { params: { name }, ...options })).body;
  }

  /** @throws VolantError `not_found` */
  async restart(name: string, options: CallOptions = {}): Promise<Vm> {
    return (await this.#transport.call("vms.restart", { params: { name }, ...options })).body;
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
  async install(manifest: Manifest, options: CallOptions = {}): Promise<Plugin> {
    return (await this.#transport.call("plugins.install", { body: manifest, ...options })).body;
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

  /** Hands a file over. An iterable is sent as it comes and never held whole. @throws VolantError `checksum_mismatch`, `too_large` */
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
  readonly plugins: PluginClient;
  readonly images: ImageClient;
  readonly system: SystemClient;

  /** @throws VolantError `invalid` when the base URL is none */
  constructor(options: TransportOptions) {
    this.#transport = new Transport(options);
    this.vms = new VmClient(this.#transport);
    this.plugins = new PluginClient(this.#transport);
    this.images = new ImageClient(this.#transport);
    this.system = new SystemClient(this.#transport);
  }

  /** Base URL without a slash at its end. */
  get baseUrl(): string {
    return this.#transport.baseUrl;
  }

  /** What happens to VMs from now on (or after an id), over as many connections as it takes. Ends by the signal, or when the reader stops. */
  events(options: EventOptions = {}): AsyncIterable<VmEvent> {
    return streamEvents(this.#transport, options);
  }
}
