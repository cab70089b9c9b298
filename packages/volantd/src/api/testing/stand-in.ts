/**
 * Use cases in memory, for tests of what stands on them: they keep the promises of the port and run no VM. A test moves VMs itself.
 */
import { createHash } from "node:crypto";
import { connect } from "node:net";
import { DatabaseSync } from "node:sqlite";
import { Readable, type Duplex } from "node:stream";
import {
  VolantError,
  type CreateVmRequest,
  type Manifest,
  type Plugin,
  type Vm,
  type VmConfigState,
  type VmConfigVersion,
  type VmEvent,
  type VmLogLine,
  type VmTraffic,
  type VmStatus,
} from "@volant/contract";
import { KeyService } from "../../engine/key-service.ts";
import { ApiKeys } from "../../store/api-keys.ts";
import { migrate } from "../../store/migrations.ts";
import { isSince, isWanted } from "../../engine/event-filter.ts";
import { ConsoleService } from "../../engine/console-service.ts";
import { SharedSerials } from "../../guest/shared-serial.ts";
import { VfioService } from "../../engine/vfio-service.ts";
import { WorkloadService } from "../../engine/workload-service.ts";
import type {
  EventFeed,
  EventFilter,
  EventListOptions,
  EventSubscription,
  NumberedEvent,
  ReachUseCases,
  StoredLogLine,
  SubscribeOptions,
  UseCases,
  VmFilter,
} from "../../engine/use-cases.ts";
import { PciSysfs } from "@volant/host";
import { createStandInArtifacts } from "./stand-in-artifacts.ts";
import { createStandInExec } from "./stand-in-exec.ts";
import { createStandInDeployments, type StandInDeployments } from "./stand-in-deployments.ts";

const EPOCH = "2026-01-01T00:00:00.000Z";

/** What is backed up. */
const BACKUP = Buffer.from("SQLite format 3\0 and so on");

export class StandInFeed implements EventFeed {
  readonly #events: NumberedEvent[] = [];
  readonly #waiting = new Set<() => void>();

  /** Streams that are open now. */
  get readers(): number {
    return this.#waiting.size;
  }

  publish(event: VmEvent): void {
    this.#events.push({ id: this.#events.length + 1, event });
    for (const wake of this.#waiting) wake();
  }

  subscribe({ afterId, filter = {}, signal }: SubscribeOptions): EventSubscription {
    const live = filter.sinceMs === undefined ? this.#events.length : 0;
    const events = this.#read(afterId ?? live, filter, signal);
    const kept = this.#events;
    return {
      [Symbol.asyncIterator]: () => events,
      get position() {
        return kept.length;
      },
    };
  }

  list({ filter = {}, after = 0, before = Number.MAX_SAFE_INTEGER, limit }: EventListOptions): NumberedEvent[] {
    const found = this.#events.filter(
      ({ id, event }) => id > after && id < before && isWanted(filter, event) && isSince(filter, event),
    );
    return found.toReversed().slice(0, limit);
  }

  async *#read(from: number, filter: EventFilter, signal: AbortSignal): AsyncGenerator<NumberedEvent> {
    let next = from;
    while (!signal.aborted) {
      const event = this.#events[next];
      if (event !== undefined) {
        next += 1;
        if (isWanted(filter, event.event)) yield event;
        continue;
      }
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#waiting.delete(wake);
          signal.removeEventListener("abort", wake);
          resolve();
        };
        this.#waiting.add(wake);
        signal.addEventListener("abort", wake);
      });
    }
  }
}

function present<T>(map: ReadonlyMap<string, T>, kind: string, name: string): T {
  const found = map.get(name);
  if (found === undefined) throw new VolantError("not_found", `there is no ${kind} "${name}"`);
  return found;
}

function newVm(id: number, request: CreateVmRequest): Vm {
  return {
    id,
    name: request.name,
    status: "pending",
    runtime: request.runtime ?? request.plugin ?? "",
    ip_address: `192.168.127.${id + 1}`,
    mac_address: `02:00:00:00:00:${(id % 256).toString(16).padStart(2, "0")}`,
    cpu_cores: request.cpu_cores ?? 1,
    memory_mb: request.memory_mb ?? 128,
    kernel_cmdline: request.kernel_cmdline ?? "",
    serial_socket: "",
    created_at: EPOCH,
    updated_at: EPOCH,
    vsock_cid: id + 2,
    plugin: request.plugin ?? "",
    network: { mode: "bridged", addresses: [] },
    agent: { attached: false },
  };
}

export interface StandIn {
  readonly useCases: UseCases;
  readonly feed: StandInFeed;
  readonly deployments: StandInDeployments;
  /** Contents by checksum. */
  readonly images: Map<string, Buffer>;
  /** Ports of this machine on which workloads listen, by the name of their VM. */
  readonly workloads: Map<string, number>;
  /** Paths of serial consoles' sockets, by the id of their VM. */
  readonly serials: Map<number, string>;
  /** What was written into guests, by path; reading a path gives it back. */
  readonly guestFiles: Map<string, Buffer>;
  /** What workloads have printed. A line's cursor is 16 zeros, `-` and its number. */
  readonly logLines: VmLogLine[];
  /** Moves a VM and publishes the event. */
  move(name: string, status: VmStatus, reason?: string): void;
  /** The next call of any VM use case throws this. */
  failNext(error: unknown): void;
  /** What is waited for before an answer may promise anything from now on. */
  settleWith(work: () => Promise<void>): void;
}

/** The store's own, on a database that nothing is left of. */
function keysInMemory(): ApiKeys {
  const database = new DatabaseSync(":memory:");
  migrate(database, ":memory:");
  return new ApiKeys({ database, now: () => new Date(), transaction: (work) => work() });
}

/** Ports of a guest are this machine's. */
function dial(port: number): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true }, () => resolve(socket));
    socket.once("error", (error) =>
      reject(new VolantError("guest_unreachable", "nothing listens there", { cause: error })),
    );
  });
}

function trafficAfter(seconds: number): VmTraffic {
  return { rx_bytes: seconds * 2048, tx_bytes: seconds * 1024, rx_packets: seconds * 2, tx_packets: seconds };
}

/** A fresh stand-in with nothing in it. */
export function createStandIn(): StandIn {
  let settle = async (): Promise<void> => {};
  const vms = new Map<string, Vm>();
  const plugins = new Map<string, Plugin>();
  const images = new Map<string, Buffer>();
  const workloads = new Map<string, number>();
  const serials = new Map<number, string>();
  /** What was made by requests with an `Idempotency-Key`. */
  const keyed = new Map<string, Vm>();
  const configs = new Map<string, readonly VmConfigVersion[]>();
  const guestFiles = new Map<string, Buffer>();
  const logLines: VmLogLine[] = [];
  const feed = new StandInFeed();
  const deployments = createStandInDeployments(
    EPOCH,
    (event) => feed.publish(event),
    (name) => vms.has(name),
  );
  /** How often VMs' use was read: each time a second has passed, and each VM has used a tenth of a core for each number of its id. */
  let readings = 0;
  let lastId = 0;
  let failure: { readonly error: unknown } | undefined;

  function failing(): void {
    const due = failure;
    failure = undefined;
    if (due !== undefined) throw due.error;
  }
  function change(name: string, status: VmStatus, type: VmEvent["type"], reason?: string): Vm {
    const { reason: _, ...rest } = present(vms, "VM", name);
    const vm: Vm = { ...rest, status, ...(reason === undefined ? {} : { reason }) };
    vms.set(name, vm);
    feed.publish({ type, name, status, timestamp: EPOCH, ...(reason === undefined ? {} : { reason }) });
    return vm;
  }
  function history(name: string): readonly VmConfigVersion[] {
    present(vms, "VM", name);
    return configs.get(name) ?? [];
  }
  function configOf(name: string, latest: VmConfigVersion | undefined): VmConfigState {
    const { version, updated_at, config } = latest ?? { version: 1, updated_at: EPOCH, config: {} };
    return { version, updated_at, config, pending: present(vms, "VM", name).status === "running" };
  }
  function select(filter: VmFilter): Vm[] {
    return [...vms.values()].filter(
      (vm) =>
        (filter.status === undefined || filter.status.includes(vm.status)) &&
        (filter.plugin === undefined || vm.plugin === filter.plugin) &&
        (filter.q === undefined || vm.name.includes(filter.q)),
    );
  }
  const eventOf = {
    pending: "VM_UPDATED",
    starting: "VM_UPDATED",
    running: "VM_RUNNING",
    stopped: "VM_STOPPED",
    crashed: "VM_CRASHED",
  } as const;

  const reach: ReachUseCases = {
    workload(name) {
      present(vms, "VM", name);
      const port = workloads.get(name);
      if (port === undefined) throw new VolantError("guest_unreachable", `the agent of VM "${name}" is not connected`);
      return { authority: "workload.example:80", connect: () => dial(port) };
    },
    async forward(name, port) {
      present(vms, "VM", name);
      return dial(port);
    },
    async exec(name) {
      present(vms, "VM", name);
      return createStandInExec();
    },
    async agentHealth(name) {
      present(vms, "VM", name);
    },
  };
  const none = { name: "none", version: "1", resources: { cpu_cores: 1, memory_mb: 1 }, workload: {} };
  const vmRecord = (vm: Vm) => ({
    spec: { name: vm.name, plugin: vm.plugin, manifest: plugins.get(vm.plugin)?.manifest ?? none },
  });
  const useCases: UseCases = {
    keys: new KeyService({ keys: keysInMemory(), now: () => new Date(), onError: () => {} }),
    // Nothing here outlives a power failure.
    backups: { backup: async () => ({ sizeBytes: BACKUP.length, content: Readable.from([BACKUP]) }) },
    durability: { settled: () => settle() },
    vms: {
      async create(request, key) {
        failing();
        const before = key === undefined ? undefined : keyed.get(key);
        if (before !== undefined) return before;
        if (vms.has(request.name)) throw new VolantError("exists", `a VM "${request.name}" exists already`);
        if (request.plugin !== undefined) present(plugins, "plugin", request.plugin);
        const vm = newVm((lastId += 1), request);
        vms.set(vm.name, vm);
        if (key !== undefined) keyed.set(key, vm);
        configs.set(vm.name, [{ id: 1, version: 1, updated_at: EPOCH, config: request.config ?? {} }]);
        feed.publish({ type: "VM_CREATED", name: vm.name, status: vm.status, timestamp: EPOCH });
        return vm;
      },
      async wait(name, goal, { timeoutMs, signal }) {
        present(vms, "VM", name);
        if (goal === "settled") return true;
        if (timeoutMs === 0) return false;
        // A test moves the VM: an event says so.
        const late = AbortSignal.timeout(timeoutMs);
        const ended = signal === undefined ? late : AbortSignal.any([signal, late]);
        for await (const _ of feed.subscribe({ afterId: 0, signal: ended })) {
          if (["running", "crashed"].includes(present(vms, "VM", name).status)) return true;
        }
        return false;
      },
      refresh: async () => {},
      list(filter) {
        failing();
        const found = select(filter);
        const { offset = 0, limit = found.length } = filter;
        return { vms: found.slice(offset, offset + limit), total: found.length };
      },
      get: (name) => present(vms, "VM", name),
      async delete(name, patience) {
        failing();
        if (patience?.timeoutMs === 0) throw new VolantError("timeout", `VM "${name}" is not gone yet`);
        present(vms, "VM", name);
        vms.delete(name);
        feed.publish({ type: "VM_DELETED", name, timestamp: EPOCH });
      },
      async start(name) {
        if (["running", "starting", "pending"].includes(present(vms, "VM", name).status)) {
          throw new VolantError("wrong_state", `VM "${name}" is started already`);
        }
        return change(name, "pending", "VM_UPDATED");
      },
      async stop(name, patience) {
        // Whoever has no time at all sees it stop later.
        if (patience?.timeoutMs === 0) throw new VolantError("timeout", `VM "${name}" does not stop`);
        return change(name, "stopped", "VM_STOPPED");
      },
      restart: async (name) => change(name, "pending", "VM_UPDATED"),
    },
    deployments: deployments.useCases,
    configs: {
      get: (name) => configOf(name, history(name)[0]),
      async patch(name, patch) {
        failing();
        const [latest] = history(name);
        const given = Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== null));
        const version = (latest?.version ?? 0) + 1;
        const written = { id: version, version, updated_at: EPOCH, config: { ...latest?.config, ...given } };
        configs.set(name, [written, ...history(name)]);
        return configOf(name, written);
      },
      history: (name, limit = 100) => history(name).slice(0, limit),
    },
    reach,
    consoles: new ConsoleService({
      serials: new SharedSerials(),
      store: {
        findVm: (name) => {
          const vm = vms.get(name);
          return vm && ({ id: vm.id, status: vm.status } as never);
        },
      },
      runtime: { sockets: (id) => ({ control: "", stream: "", serial: serials.get(id) ?? "/dev/null/none" }) },
    }),
    // The real thing, over what there is of VMs here.
    workloads: new WorkloadService({
      reach,
      store: {
        findVm: (name) => {
          const vm = vms.get(name);
          return vm === undefined ? undefined : (vmRecord(vm) as never);
        },
        findPlugin: (name) => plugins.get(name) as never,
        listVms: (filter) => {
          const found = select(filter);
          return { vms: found.map(vmRecord) as never, total: found.length };
        },
      },
    }),
    files: {
      async read(name, path) {
        present(vms, "VM", name);
        const content = guestFiles.get(path);
        if (content === undefined) throw new VolantError("not_found", `the guest has no file or directory ${path}`);
        return Readable.from([content]);
      },
      async write(name, { path, content }) {
        present(vms, "VM", name);
        if (path === "/full") throw new VolantError("exhausted", "no space is left in the guest for /full");
        const bytes = Buffer.concat(await content.toArray());
        guestFiles.set(path, bytes);
        return { files: 1, bytes: bytes.length, left_out: 0 };
      },
    },
    logs: {
      read(name, { tail, after, follow, signal }) {
        present(vms, "VM", name);
        return (async function* (): AsyncGenerator<StoredLogLine> {
          const first = after === undefined ? 0 : Number(after.split("-")[1]);
          const start = tail === undefined ? first : Math.max(0, logLines.length - tail);
          for (const [index, line] of logLines.entries()) {
            if (index >= start) yield { line, cursor: `${"0".repeat(16)}-${index + 1}` };
          }
          if (follow && !signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
        })();
      },
    },
    consoleLogs: {
      async tail(name, lines = 100) {
        present(vms, "VM", name);
        return ["Linux version 6.1", "the workload has started"].slice(-lines);
      },
    },
    plugins: {
      async install(manifest: Manifest) {
        if (plugins.has(manifest.name)) throw new VolantError("exists", `a plugin "${manifest.name}" exists already`);
        const { initramfs } = manifest;
        if (initramfs?.checksum === undefined || !images.has(initramfs.checksum)) {
          throw new VolantError("invalid", "the manifest's initramfs is not here");
        }
        const plugin: Plugin = {
          name: manifest.name,
          version: manifest.version,
          enabled: manifest.enabled ?? true,
          runtime: manifest.runtime ?? manifest.name,
          manifest,
          created_at: EPOCH,
          updated_at: EPOCH,
        };
        plugins.set(plugin.name, plugin);
        return plugin;
      },
      list: () => [...plugins.values()],
      get: (name) => present(plugins, "plugin", name),
      manifest(name) {
        const plugin = present(plugins, "plugin", name);
        if (!plugin.enabled) throw new VolantError("disabled", `plugin "${name}" is disabled`);
        return plugin.manifest;
      },
      setEnabled(name, enabled) {
        const plugin = { ...present(plugins, "plugin", name), enabled };
        plugins.set(name, plugin);
        return plugin;
      },
      async remove(name) {
        present(plugins, "plugin", name);
        if ([...vms.values()].some((vm) => vm.plugin === name)) {
          throw new VolantError("in_use", `plugin "${name}" is needed by a VM`);
        }
        plugins.delete(name);
      },
    },
    artifacts: createStandInArtifacts(EPOCH, plugins, images),
    images: {
      has: async (checksum) => images.has(checksum),
      async put(checksum, content) {
        const bytes = Buffer.concat(await content.toArray());
        if (`sha256:${createHash("sha256").update(bytes).digest("hex")}` !== checksum) {
          throw new VolantError("checksum_mismatch", `the file does not have the checksum ${checksum}`);
        }
        images.set(checksum, bytes);
      },
    },
    readiness: { check: async () => {} },
    metrics: { metrics: async () => "volant_vms 0\n" },
    // A host without any PCI device.
    vfio: new VfioService(new PciSysfs({ root: "/nonexistent" })),
    system: {
      info: () => ({
        status: "ok",
        version: "0.1.0",
        api_listen_addr: "127.0.0.1:0",
        api_advertise_addr: "",
        host_ip: "192.168.127.1",
        bridge: "vbr0",
        subnet: "192.168.127.0/24",
        installation: "0123abcd",
        hypervisor: { name: "none", version: "0", accelerator: "tcg" },
        network: "bridge",
        transport: { data: "virtio-serial", wanted: "off", reason: "VOLANT_VSOCK is off" },
      }),
      summary: () => ({
        total_vms: vms.size,
        by_status: Object.fromEntries(
          Object.entries(Object.groupBy(vms.values(), (vm) => vm.status)).map(([key, list]) => [
            key,
            list?.length ?? 0,
          ]),
        ),
        by_runtime: {},
        total_plugins: plugins.size,
        enabled_plugins: [...plugins.values()].filter((plugin) => plugin.enabled).length,
        plugins: [...plugins.values()].map(({ name, version, enabled }) => ({ name, version, enabled })),
      }),
    },
    usage: {
      async read() {
        readings += 1;
        const running = [...vms.values()].filter(({ status }) => status === "running");
        return {
          taken_at: EPOCH,
          clock_ms: readings * 1000,
          vms: running.map(({ id, name, cpu_cores, memory_mb, network }) => ({
            id,
            name,
            pid: 1000 + id,
            cpu_ms: readings * 100 * id,
            memory_bytes: id * 1024 * 1024,
            cpu_cores,
            memory_mb,
            ...(network.mode === "vsock" ? {} : { network: trafficAfter(readings) }),
          })),
        };
      },
    },
    events: feed,
  };
  return {
    useCases,
    feed,
    deployments,
    images,
    workloads,
    serials,
    guestFiles,
    logLines,
    move: (name, status, reason) => void change(name, status, eventOf[status], reason),
    failNext: (error) => (failure = { error }),
    settleWith: (work) => (settle = work),
  };
}
