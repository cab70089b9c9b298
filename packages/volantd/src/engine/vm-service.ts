/** What users do with VMs: each writes its intent down, wakes the loop, and where the contract says so waits for the outcome. */
import { VolantError, type CreateVmRequest, type Manifest, type Vm } from "@volant/contract";
import type { ImageStore } from "../image/image.ts";
import type { ManagedNetwork } from "../model/manifest.ts";
import { checkMemory } from "../model/memory.ts";
import { needsIPAllocation, needsTapDevice } from "../model/network.ts";
import { checkAction } from "../model/vm-state.ts";
import { requestedPlugin, resolveVm, type VmSpec } from "../model/vm-spec.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import { checkUserCmdline } from "../runtime/kernel-cmdline.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Intent, NewVm, Store, VmRecord } from "../store/store.ts";
import type { Engine } from "./engine.ts";
import type { EventHub } from "./event-hub.ts";
import type { VmFilter, VmUseCases } from "./use-cases.ts";
import { vmEvent, vmView, type ViewContext } from "./vm-view.ts";

export interface VmServiceOptions {
  readonly store: Store;
  readonly engine: Engine;
  readonly runtime: Runtime;
  readonly network: NetworkManager;
  readonly images: ImageStore;
  readonly events: EventHub;
  readonly managed: ManagedNetwork;
  readonly now: () => Date;
}

/** A stop goes through its deadlines and ends in a kill; what takes longer than this is stuck. */
const STOP_TIMEOUT_MS = 60_000;
const DELETE_TIMEOUT_MS = 60_000;

export class VmService implements VmUseCases {
  readonly #options: VmServiceOptions;
  readonly #view: ViewContext;

  constructor(options: VmServiceOptions) {
    this.#options = options;
    this.#view = { runtime: options.runtime, bridge: options.managed.bridge, pool: options.managed.pool };
  }

  async create(request: CreateVmRequest): Promise<Vm> {
    const { store, images, network, managed, events, engine, now } = this.#options;
    if (store.findVm(request.name) !== undefined) {
      throw new VolantError("exists", `a VM named "${request.name}" exists already`);
    }
    const resolved = resolveVm(request, this.#manifestFor(request), managed);
    const kernelCmdline = checkUserCmdline(resolved.kernelCmdline);
    const checksum = await images.adopt(resolved.initramfs);
    const image = await images.bootImage(checksum);
    checkMemory(resolved.memoryMib, image.unpackedBytes);
    await images.kernel();
    const spec: VmSpec = { ...resolved, kernelCmdline, initramfs: { ...resolved.initramfs, checksum } };
    const [firstTap] = this.#newVm(spec).tapNames ?? [];
    if (firstTap !== undefined) await network.checkReady(firstTap, spec.bridge);
    // The names are a generator, which the look at its first one has ended.
    const record = store.createVm(this.#newVm(spec));
    events.publish(vmEvent("VM_CREATED", record, { now: now() }));
    engine.wake(record.id, true);
    return this.#show(record);
  }

  #manifestFor(request: CreateVmRequest): Manifest {
    const name = requestedPlugin(request);
    if (name === undefined) return request.config?.manifest as Manifest;
    const plugin = this.#options.store.findPlugin(name);
    if (plugin === undefined) {
      throw new VolantError("not_found", `plugin "${name}" is not installed`, { hint: "volar plugins list" });
    }
    if (!plugin.enabled) {
      throw new VolantError("disabled", `plugin "${name}" is disabled`, { hint: `volar plugins enable ${name}` });
    }
    return plugin.manifest;
  }

  #newVm(spec: VmSpec): NewVm {
    const { network, managed } = this.#options;
    const needs = { mode: spec.mode };
    const names = spec.tap === undefined ? network.tapNames(spec.name) : [spec.tap];
    return {
      spec,
      tapNames: needsTapDevice(needs) ? names : undefined,
      pool: needsIPAllocation(needs) ? managed.pool : undefined,
    };
  }

  list(filter: VmFilter): { readonly vms: readonly Vm[]; readonly total: number } {
    const { vms, total } = this.#options.store.listVms(filter);
    return { vms: vms.map((record) => this.#show(record)), total };
  }

  get(name: string): Vm {
    return this.#show(this.#find(name));
  }

  async delete(name: string): Promise<void> {
    const { store, engine } = this.#options;
    const { id, desired } = this.#find(name);
    if (desired !== "absent") this.#intend(id, { desired: "absent", start: false });
    else engine.wake(id, true);
    const gone = () => store.getVm(id) === undefined;
    await this.#until(id, gone, DELETE_TIMEOUT_MS, `VM "${name}" is not gone yet`);
  }

  async start(name: string): Promise<Vm> {
    return this.#begin("start", name);
  }

  async restart(name: string): Promise<Vm> {
    return this.#begin("restart", name);
  }

  #begin(action: "start" | "restart", name: string): Vm {
    const record = this.#find(name);
    checkAction(action, { name, desired: record.desired, status: record.status });
    const pool = needsIPAllocation({ mode: record.spec.mode }) ? this.#options.managed.pool : undefined;
    return this.#show(this.#intend(record.id, { desired: "running", start: true, pool }));
  }

  async stop(name: string): Promise<Vm> {
    const { store } = this.#options;
    const record = this.#find(name);
    checkAction("stop", { name, desired: record.desired, status: record.status });
    const { generation } = record;
    if (record.desired !== "stopped") this.#intend(record.id, { desired: "stopped", start: false });
    const stopped = (settled: boolean): boolean => {
      const now = store.getVm(record.id);
      if (now === undefined) throw new VolantError("not_found", `VM "${name}" was deleted while it was being stopped`);
      if (now.generation !== generation || now.desired !== "stopped") {
        throw new VolantError("wrong_state", `VM "${name}" was given another order while it was being stopped`);
      }
      return settled && now.status === "stopped";
    };
    await this.#until(record.id, stopped, STOP_TIMEOUT_MS, `VM "${name}" does not stop`);
    return this.get(name);
  }

  #intend(id: number, intent: Intent): VmRecord {
    const { store, engine, events, now } = this.#options;
    const record = store.setIntent(id, intent);
    if (intent.start) events.publish(vmEvent("VM_UPDATED", record, { now: now() }));
    engine.wake(id, true);
    return record;
  }

  async #until(id: number, done: (settled: boolean) => boolean, timeoutMs: number, what: string): Promise<void> {
    const { engine, store } = this.#options;
    try {
      await engine.until(id, (lane) => done(lane.settled), timeoutMs, what);
    } catch (error) {
      const reason = store.getVm(id)?.reason;
      if (!(error instanceof VolantError) || error.code !== "timeout" || reason === undefined) throw error;
      throw new VolantError("timeout", `${what}: ${reason}`, { cause: error });
    }
  }

  #find(name: string): VmRecord {
    const record = this.#options.store.findVm(name);
    if (record === undefined) throw new VolantError("not_found", `there is no VM named "${name}"`);
    return record;
  }

  #show(record: VmRecord): Vm {
    return vmView(record, this.#options.engine.lane(record.id), this.#view);
  }
}
