/** What users do with VMs: each writes its intent down, wakes the loop, and where the contract says so waits for the outcome. */
import { VolantError, type CreateVmRequest, type Manifest, type Vm } from "@volant/contract";
import type { ImageStore } from "../image/image.ts";
import { checkChosenAddresses } from "../model/chosen-address.ts";
import { checkNoReplica } from "../model/deployment.ts";
import type { ManagedNetwork } from "../model/manifest.ts";
import { wantedPorts } from "../model/published-port.ts";
import { LONGEST_TIMER_MS } from "../model/timer.ts";
import { checkAction, hasEnded } from "../model/vm-state.ts";
import { requestedPlugin, resolveVm, type VmSpec } from "../model/vm-spec.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import { stopPatience } from "../plan/plan-stop.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Intent, Store, VmRecord } from "../store/store.ts";
import { cameAbout } from "./came-about.ts";
import type { Engine } from "./engine.ts";
import { KeyedRequests, type Keyed } from "./keyed-requests.ts";
import type { Lane } from "./lane.ts";
import type { EventHub } from "./event-hub.ts";
import type { PortKeeper } from "./port-keeper.ts";
import { findVm } from "./find-vm.ts";
import type { Patience, VmFilter, VmUseCases } from "./use-cases.ts";
import { checkTapReady, newVm, prepareVm, usablePlugin } from "./vm-preparation.ts";
import { ShownVms } from "./shown-vms.ts";
import { nextRestartAt, vmEvent } from "./vm-view.ts";

export interface VmServiceOptions {
  readonly store: Store;
  readonly engine: Engine;
  readonly runtime: Runtime;
  readonly network: NetworkManager;
  readonly images: ImageStore;
  readonly events: EventHub;
  readonly ports: PortKeeper;
  readonly managed: ManagedNetwork;
  readonly now: () => Date;
  /** Whether guests are held to their addresses where neither the VM nor its manifest says so. */
  readonly antiSpoof?: boolean | undefined;
  /** What a guest's agent gets to end it. */
  readonly stopTimeoutMs?: number | undefined;
}

/** A stop goes through its deadlines and ends in a kill; what takes so much longer than these is stuck. */
const STUCK_AFTER_MS = 45_000;
const DELETE_PATIENCE: Patience = { timeoutMs: 60_000 };

export class VmService implements VmUseCases {
  readonly #options: VmServiceOptions;
  readonly #shown: ShownVms;
  /** What was made of a list of the store's, which gives the same one again while nothing is written. */
  readonly #lists = new WeakMap<readonly VmRecord[], readonly Vm[]>();
  readonly #requests: KeyedRequests;

  constructor(options: VmServiceOptions) {
    this.#options = options;
    this.#requests = new KeyedRequests(options.store);
    const { runtime, network, managed, ports } = options;
    this.#shown = new ShownVms({
      runtime,
      network,
      bridge: network.manages ? managed.bridge : undefined,
      pool: managed.pool,
      portState: (port) => ports.state(port),
    });
  }

  create(request: CreateVmRequest, key?: string): Promise<Vm> {
    return this.#requests.run("vms.create", key, request, (keyed) => this.#create(request, keyed));
  }

  async #create(request: CreateVmRequest, keyed: Keyed | undefined): Promise<Vm> {
    const { store, images, network, managed, events, engine, ports, runtime, now } = this.#options;
    if (store.findVm(request.name) !== undefined) {
      throw new VolantError("exists", `a VM named "${request.name}" exists already`);
    }
    runtime.checkRoom();
    const resolved = resolveVm(request, this.#manifestFor(request), managed, this.#options.antiSpoof);
    await this.#checkAddresses(resolved);
    const spec = await prepareVm(images, resolved);
    await checkTapReady(spec, network);
    // Listened on before anything is stored: a port that another program has is found out here, and can't be taken meanwhile.
    const claim = await ports.claim(wantedPorts(`VM "${spec.name}"`, spec.config.expose));
    let record: VmRecord;
    try {
      const answer = (made: VmRecord) => JSON.stringify(this.#show(made));
      record = store.together(() => {
        const made = newVm(spec, { network, managed }, claim.ports);
        const created = store.createVm({ ...made, request: keyed && { ...keyed, answer } });
        events.publish(vmEvent("VM_CREATED", created, { now: now() }));
        return created;
      });
    } catch (error) {
      claim.release();
      throw error;
    }
    claim.keep(record.id);
    engine.wake(record.id, true);
    return this.#show(record);
  }

  #manifestFor(request: CreateVmRequest): Manifest {
    const name = requestedPlugin(request);
    if (name === undefined) return request.config?.manifest as Manifest;
    return usablePlugin(name, this.#options.store.findPlugin(name)).manifest;
  }

  /** What the user chose: right in itself, and no link's of this host. Whether it is another VM's is the store's to say. */
  async #checkAddresses({ name, config, mode, mac }: VmSpec): Promise<void> {
    const { store, network, managed } = this.#options;
    const where = `VM "${name}"`;
    checkChosenAddresses(where, config, { mode, pool: managed.pool, installation: store.installation });
    const link = mac === undefined ? undefined : await network.linkWithMac(mac);
    if (link !== undefined) throw new VolantError("exists", `${where}: MAC ${mac} is that of ${link} on this host`);
  }

  refresh(): Promise<void> {
    return this.#options.network.countDropped();
  }

  list(filter: VmFilter): { readonly vms: readonly Vm[]; readonly total: number } {
    const { vms: records, total } = this.#options.store.listVms(filter);
    const before = this.#lists.get(records);
    if (before !== undefined && records.every((record, index) => this.#show(record) === before[index])) {
      return { vms: before, total };
    }
    const vms = records.map((record) => this.#show(record));
    this.#lists.set(records, vms);
    return { vms, total };
  }

  get(name: string): Vm {
    return this.#show(this.#find(name));
  }

  async delete(name: string, patience: Patience = DELETE_PATIENCE): Promise<void> {
    const { store, engine, ports } = this.#options;
    const { id, desired } = this.#find(name);
    if (desired !== "absent") this.#intend(id, { desired: "absent", start: false });
    else engine.wake(id, true);
    const gone = () => store.getVm(id) === undefined;
    await this.#until(id, gone, patience, `VM "${name}" is not gone yet`);
    await ports.sync();
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
    const { managed, network } = this.#options;
    const { pool } = managed;
    const tapNames = network.tapNames(name);
    return this.#show(this.#intend(record.id, { desired: "running", start: true, pool, tapNames }));
  }

  async stop(name: string, patience?: Patience): Promise<Vm> {
    const { store, stopTimeoutMs } = this.#options;
    const record = this.#find(name);
    checkNoReplica("stopped", record, (deployment) => `volar deployments scale ${deployment} --replicas <count>`);
    checkAction("stop", { name, desired: record.desired, status: record.status });
    const { generation } = record;
    if (record.desired !== "stopped") this.#intend(record.id, { desired: "stopped", start: false });
    const stopped = ({ settled }: Lane): boolean => {
      const now = store.getVm(record.id);
      if (now === undefined) throw new VolantError("not_found", `VM "${name}" was deleted while it was being stopped`);
      if (now.generation !== generation || now.desired !== "stopped") {
        throw new VolantError("wrong_state", `VM "${name}" was given another order while it was being stopped`);
      }
      return settled && now.status === "stopped";
    };
    const { agentMs, buttonMs = 0 } = stopPatience(stopTimeoutMs);
    const usual: Patience = { timeoutMs: Math.min(LONGEST_TIMER_MS, agentMs + buttonMs + STUCK_AFTER_MS) };
    await this.#until(record.id, stopped, patience ?? usual, `VM "${name}" does not stop`);
    return this.get(name);
  }

  async wait(name: string, goal: "running" | "settled", patience: Patience): Promise<boolean> {
    const { id } = this.#find(name);
    const reached = (lane: Lane): boolean => {
      const now = this.#options.store.getVm(id);
      if (now === undefined || now.desired === "absent") {
        throw new VolantError("not_found", `VM "${name}" was deleted while it was waited for`);
      }
      return goal === "settled" ? lane.settled : hasOutcome(now);
    };
    return cameAbout(this.#until(id, reached, patience, `VM "${name}" is not ${goal} yet`), patience);
  }

  #intend(id: number, intent: Intent): VmRecord {
    const { store, engine, events, now } = this.#options;
    const record = store.together(() => {
      const written = store.setIntent(id, intent);
      if (intent.start) events.publish(vmEvent("VM_UPDATED", written, { now: now() }));
      return written;
    });
    engine.wake(id, true);
    // A VM that is being deleted lets go of its ports at once.
    if (intent.desired === "absent") void this.#options.ports.sync();
    return record;
  }

  async #until(id: number, done: (lane: Lane) => boolean, patience: Patience, what: string): Promise<void> {
    const { engine, store } = this.#options;
    try {
      await engine.until(id, done, patience.timeoutMs, what, patience.signal);
    } catch (error) {
      const reason = store.getVm(id)?.reason;
      if (!(error instanceof VolantError) || error.code !== "timeout" || reason === undefined) throw error;
      throw new VolantError("timeout", `${what}: ${reason}`, { cause: error });
    }
  }

  #find(name: string): VmRecord {
    return findVm(this.#options.store, name);
  }

  #show(record: VmRecord): Vm {
    return this.#shown.show(record, this.#options.engine.lane(record.id));
  }
}

/** Whether what a start comes to is known. @throws VolantError `wrong_state` when it is not to run any more */
function hasOutcome(vm: VmRecord): boolean {
  const { generation, runningGeneration, desired, status } = vm;
  if (desired !== "running") {
    throw new VolantError("wrong_state", `VM "${vm.spec.name}" was stopped while its start was waited for`);
  }
  if (status === "running") return runningGeneration === generation;
  return hasEnded(vm) && nextRestartAt(vm) === undefined;
}
