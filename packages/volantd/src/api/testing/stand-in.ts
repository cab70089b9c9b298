/**
 * Use cases in memory, for tests of what stands on them: they keep the promises of the port and run no VM. A test moves VMs itself.
 */
import { createHash } from "node:crypto";
import { connect } from "node:net";
import { PassThrough, type Duplex } from "node:stream";
import {
  VolantError,
  type CreateVmRequest,
  type Manifest,
  type Plugin,
  type Vm,
  type VmEvent,
  type VmStatus,
} from "@volant/contract";
import type { EventFeed, NumberedEvent, UseCases, VmFilter } from "../../engine/use-cases.ts";

const EPOCH = "2026-01-01T00:00:00.000Z";

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

  async *subscribe({ afterId, signal }: { afterId?: number; signal: AbortSignal }): AsyncGenerator<NumberedEvent> {
    let next = afterId ?? this.#events.length;
    while (!signal.aborted) {
      const event = this.#events[next];
      if (event !== undefined) {
        next += 1;
        yield event;
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
  /** Contents by checksum. */
  readonly images: Map<string, Buffer>;
  /** Ports of this machine on which workloads listen, by the name of their VM. */
  readonly workloads: Map<string, number>;
  /** Moves a VM and publishes the event. */
  move(name: string, status: VmStatus, reason?: string): void;
  /** The next call of any VM use case throws this. */
  failNext(error: unknown): void;
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

/** A fresh stand-in with nothing in it. */
export function createStandIn(): StandIn {
  const vms = new Map<string, Vm>();
  const plugins = new Map<string, Plugin>();
  const images = new Map<string, Buffer>();
  const workloads = new Map<string, number>();
  const feed = new StandInFeed();
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

  const useCases: UseCases = {
    vms: {
      async create(request) {
        failing();
        if (vms.has(request.name)) throw new VolantError("exists", `a VM "${request.name}" exists already`);
        if (request.plugin !== undefined) present(plugins, "plugin", request.plugin);
        const vm = newVm((lastId += 1), request);
        vms.set(vm.name, vm);
        feed.publish({ type: "VM_CREATED", name: vm.name, status: vm.status, timestamp: EPOCH });
        return vm;
      },
      list(filter) {
        failing();
        const found = select(filter);
        const { offset = 0, limit = found.length } = filter;
        return { vms: found.slice(offset, offset + limit), total: found.length };
      },
      get: (name) => present(vms, "VM", name),
      async delete(name) {
        failing();
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
      stop: async (name) => change(name, "stopped", "VM_STOPPED"),
      restart: async (name) => change(name, "pending", "VM_UPDATED"),
    },
    reach: {
      workload(name) {
        present(vms, "VM", name);
        const port = workloads.get(name);
        if (port === undefined)
          throw new VolantError("guest_unreachable", `the agent of VM "${name}" is not connected`);
        return { authority: "workload.example:80", connect: () => dial(port) };
      },
      async forward(name, port) {
        present(vms, "VM", name);
        return dial(port);
      },
      async exec(name) {
        present(vms, "VM", name);
        return new PassThrough();
      },
      async agentHealth(name) {
        present(vms, "VM", name);
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
    events: feed,
  };
  return {
    useCases,
    feed,
    images,
    workloads,
    move: (name, status, reason) => void change(name, status, eventOf[status], reason),
    failNext: (error) => (failure = { error }),
  };
}
