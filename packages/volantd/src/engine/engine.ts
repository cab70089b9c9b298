/**
 * The loop: observe, plan, execute.
 *
 * Rules of concurrency. A VM's passes never overlap. VMs that are due at the same time share one look at the host, and that look begins only after
 * each of them has finished its last pass, so that no plan is made from a time before its own steps. Rows are read after the look: what is seen and
 * has no row then is an orphan. After a pass with steps the VM is due again, until nothing is left to do.
 */
import { VolantError, type VmEventType } from "@volant/contract";
import { dhcpLease, leaseText, type DhcpLease } from "../model/dhcp-lease.ts";
import { planVm } from "../plan/plan-vm.ts";
import { vmStatus } from "../plan/status.ts";
import type { ObservedVm } from "../plan/observed.ts";
import type { Plan } from "../plan/step.ts";
import type { HypervisorProcess } from "../runtime/runtime.ts";
import type { VmRecord } from "../store/store.ts";
import { HostKeeper } from "./host-keeper.ts";
import { execute, type ExecutorDeps } from "./executors.ts";
import { Lane } from "./lane.ts";
import { desiredVm, observedVm, observedVmIds, observeHost, type HostView } from "./observe.ts";
import { Slots } from "./slots.ts";
import { vmEvent } from "./vm-view.ts";

export interface EngineLog {
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
}

export interface EngineOptions extends ExecutorDeps {
  /** How often to look though nothing has happened. Default: 10 s. */
  readonly lookEveryMs?: number;
  /** How many VMs' steps are carried out at a time. Default: 16. */
  readonly parallel?: number;
}

const LOOK_EVERY_MS = 10_000;
const PARALLEL = 16;
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 10_000;
/** How long a closing engine lets steps that are under way finish. */
const CLOSE_GRACE_MS = 5000;

const STATUS_EVENTS: Readonly<Partial<Record<VmRecord["status"], VmEventType>>> = {
  running: "VM_RUNNING",
  stopped: "VM_STOPPED",
  crashed: "VM_CRASHED",
};

export class Engine {
  readonly #options: EngineOptions;
  readonly #lanes = new Map<number, Lane>();
  readonly #watched = new Set<string>();
  readonly #closing = new AbortController();
  readonly #abandon = new AbortController();
  readonly #slots: Slots;
  readonly #passes = new Set<Promise<void>>();
  #turning: Promise<void> | undefined;
  readonly #keeper: HostKeeper;
  /** Something of what all VMs share may have changed: the host is due for a look even where no VM is. */
  #hostDue = false;
  #hostTimer: NodeJS.Timeout | undefined;
  #observeFailures = 0;
  #lookTimer: NodeJS.Timeout | undefined;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#slots = new Slots(options.parallel ?? PARALLEL);
    const { network, runtime, log, monotonicMs } = options;
    this.#keeper = new HostKeeper({
      network,
      log,
      monotonicMs,
      retryDelay,
      look: () => observeHost(network, runtime),
      wakeAfter: (delayMs) => this.#wakeHostAfter(delayMs),
    });
  }

  /** Finds running VMs again, begins to remove what has our mark and no row, and keeps the loop going from then on. */
  async start(): Promise<void> {
    const host = await this.#look();
    this.#adopt(host);
    this.#wakeAll(host);
    const { signal } = this.#closing;
    void this.#options.network
      .watch((vmId) => this.#networkChanged(vmId), signal)
      .catch((error: unknown) =>
        this.#options.log.error({ error }, "network events end: changes are seen by the timer only"),
      );
    this.#lookTimer = setInterval(() => void this.#lookAround(), this.#options.lookEveryMs ?? LOOK_EVERY_MS);
    this.#lookTimer.unref();
  }

  /** Lets go of everything and leaves VMs running. Steps that are under way may finish. */
  async close(): Promise<void> {
    this.#closing.abort();
    clearInterval(this.#lookTimer);
    clearTimeout(this.#hostTimer);
    // Whoever waits for an outcome is told now that this engine won't see it.
    for (const lane of this.#lanes.values()) lane.notify();
    const grace = setTimeout(() => this.#abandon.abort(), CLOSE_GRACE_MS);
    await this.#turning;
    await Promise.all(this.#passes);
    clearTimeout(grace);
    this.#abandon.abort();
    for (const lane of this.#lanes.values()) {
      clearTimeout(lane.timer);
      await lane.session?.close();
    }
  }

  lane(vmId: number): Lane | undefined {
    return this.#lanes.get(vmId);
  }

  /** Says that something about this VM has changed. `anew` forgets earlier failures: the user has spoken. */
  wake(vmId: number, anew = false): void {
    const lane = this.#laneOf(vmId);
    if (anew) lane.failure = undefined;
    lane.dirty = true;
    lane.settled = false;
    this.#schedule();
  }

  /**
   * Resolves once `done` holds, which is asked after each pass of this VM.
   *
   * @throws VolantError `timeout`; `not_ready` when the engine closes first
   */
  async until(vmId: number, done: (lane: Lane) => boolean, timeoutMs: number, what: string): Promise<void> {
    const lane = this.#laneOf(vmId);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const check = () => {
      try {
        if (done(lane)) resolve();
        else if (this.#closing.signal.aborted) reject(new VolantError("not_ready", "volantd is stopping"));
      } catch (error) {
        reject(error as Error);
      }
    };
    const timer = setTimeout(() => reject(new VolantError("timeout", what)), timeoutMs);
    lane.waiters.add(check);
    try {
      check();
      await promise;
    } finally {
      clearTimeout(timer);
      lane.waiters.delete(check);
    }
  }

  #laneOf(vmId: number): Lane {
    let lane = this.#lanes.get(vmId);
    if (lane === undefined) {
      lane = new Lane(vmId);
      this.#lanes.set(vmId, lane);
    }
    return lane;
  }

  #look(): Promise<HostView> {
    return this.#keeper.look();
  }

  /** Shows the processes of running VMs before the first pass has reached them. */
  #adopt(host: HostView): void {
    for (const process of host.processes) {
      const record = this.#options.store.getVm(process.vmId);
      if (record?.generation === process.generation) this.#laneOf(process.vmId).process = process;
    }
  }

  #wakeAll(host: HostView): void {
    const ids = observedVmIds(host, this.#options.store.installation);
    for (const id of this.#options.store.vmIds()) ids.add(id);
    for (const id of ids) this.wake(id);
  }

  async #lookAround(): Promise<void> {
    try {
      this.#wakeAll(await this.#look());
    } catch (error) {
      this.#options.log.error({ error }, "the host can't be observed");
    }
  }

  #networkChanged(vmId: number | "all"): void {
    if (vmId === "all") {
      this.#wakeHost();
      return;
    }
    // Our own steps are seen here as well; the pass that follows them looks anyway.
    if (this.#lanes.get(vmId)?.busy !== true) this.wake(vmId);
  }

  /** Looks again at what all VMs share, and at each of them. */
  #wakeHost(): void {
    this.#hostDue = true;
    for (const id of this.#options.store.vmIds()) this.wake(id);
    this.#schedule();
  }

  #wakeHostAfter(delayMs: number): void {
    clearTimeout(this.#hostTimer);
    if (this.#closing.signal.aborted) return;
    this.#hostTimer = setTimeout(() => this.#wakeHost(), delayMs);
    this.#hostTimer.unref();
  }

  #schedule(): void {
    if (this.#turning !== undefined || this.#closing.signal.aborted) return;
    this.#turning = this.#turn()
      .catch((error: unknown) => this.#options.log.error({ error }, "the loop failed"))
      .finally(() => {
        this.#turning = undefined;
        if (this.#hostDue || this.#due().length > 0) this.#schedule();
      });
  }

  #due(): Lane[] {
    return [...this.#lanes.values()].filter((lane) => lane.dirty && !lane.busy);
  }

  async #turn(): Promise<void> {
    // What happens in the same instant is looked at together.
    await new Promise(setImmediate);
    const batch = this.#due();
    if ((batch.length === 0 && !this.#hostDue) || this.#closing.signal.aborted) return;
    this.#hostDue = false;
    for (const lane of batch) {
      lane.busy = true;
      lane.dirty = false;
    }
    let host: HostView;
    try {
      host = await this.#look();
      this.#observeFailures = 0;
    } catch (error) {
      this.#options.log.error({ error }, "the host can't be observed");
      const delayMs = retryDelay(this.#observeFailures++);
      for (const lane of batch) {
        lane.busy = false;
        this.#wakeAfter(lane, delayMs);
      }
      this.#wakeHostAfter(delayMs);
      return;
    }
    for (const lane of batch) this.#startPass(lane, host);
  }

  #startPass(lane: Lane, host: HostView): void {
    const pass = this.#slots
      .run(() => this.#pass(lane, host))
      .catch((error: unknown) => this.#fail(lane, error))
      .finally(() => {
        lane.busy = false;
        this.#passes.delete(pass);
        lane.notify();
        this.#forgetIfGone(lane);
        if (lane.dirty) this.#schedule();
      });
    this.#passes.add(pass);
  }

  async #pass(lane: Lane, host: HostView): Promise<void> {
    const { store, runtime, monotonicMs } = this.#options;
    const record = store.getVm(lane.vmId);
    const context = { installation: store.installation, nowMs: monotonicMs() };
    lane.lease = record === undefined ? undefined : this.#leaseOf(record, lane);
    const observed = observedVm(lane, { tap: record?.tap, bridge: record?.spec.bridge }, host, context);
    const vm = record === undefined ? undefined : desiredVm(record, runtime);
    lane.process = observed.processes.find(({ generation }) => generation === record?.generation);
    lane.shutdowns = lane.shutdowns.filter((shutdown) =>
      observed.processes.some((process) => isSame(shutdown, process)),
    );
    for (const process of observed.processes) this.#watchExit(process);
    const plan = planVm(vm, observed);
    if (record !== undefined) this.#show(record, lane, observed, plan);
    clearTimeout(lane.timer);
    if (plan.wakeAtMs !== undefined) this.#wakeAfter(lane, Math.max(0, plan.wakeAtMs - monotonicMs()));
    const waitMs = lane.failure === undefined ? 0 : lane.failure.retryAtMs - monotonicMs();
    if (waitMs > 0 && plan.steps.length > 0) {
      this.#wakeAfter(lane, waitMs);
      return;
    }
    const signal = this.#abandon.signal;
    for (const step of plan.steps) {
      const wake = () => this.wake(lane.vmId);
      const outcome = await execute({ deps: this.#options, lane, vm: record, signal, wake }, step);
      if (outcome === "replan") break;
      if (this.#abandon.signal.aborted) return;
    }
    if (plan.steps.length > 0) lane.dirty = true;
    else if (plan.blocked === undefined) lane.failure = undefined;
    lane.settled = plan.steps.length === 0 && plan.blocked === undefined && plan.wakeAtMs === undefined && !lane.dirty;
  }

  /** The lease that a guest reports. It can't have the host's own address in the managed network, nor one that was leased to another VM. */
  #leaseOf(record: VmRecord, lane: Lane): DhcpLease | undefined {
    const { session } = lane;
    if (record.spec.mode !== "dhcp" || session === undefined || session.generation !== record.generation) {
      return undefined;
    }
    const { pool, store } = this.#options;
    return dhcpLease(session.network, (address) => {
      if (address === pool.gateway) return "this host's";
      const holder = store.vmWithAddress(address);
      return holder === undefined || holder === record.id ? undefined : "leased to another VM";
    });
  }

  #fail(lane: Lane, error: unknown): void {
    if (this.#closing.signal.aborted) return;
    const { log, monotonicMs, store } = this.#options;
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof VolantError || (error as Error).name === "NetlinkError") {
      log.warn({ vm: lane.vmId, reason: message }, "a step failed and is tried again");
    } else log.error({ vm: lane.vmId, error }, "a step failed in a way that was not expected");
    const attempts = (lane.failure?.attempts ?? 0) + 1;
    const delayMs = retryDelay(attempts - 1);
    lane.failure = { message, attempts, retryAtMs: monotonicMs() + delayMs };
    const record = store.getVm(lane.vmId);
    if (record !== undefined) {
      const deleting = record.desired === "absent" ? `deleting: ${message}` : message;
      this.#publish(record, lane, { status: record.status, reason: deleting });
    }
    this.#wakeAfter(lane, delayMs);
  }

  /** Writes down what users see of the VM, where it has changed, and tells whoever listens. */
  #show(record: VmRecord, lane: Lane, observed: ObservedVm, plan: Plan): void {
    const { endedStatus, endedReason } = record;
    const view = vmStatus({
      vm: desiredVm(record, this.#options.runtime),
      observed,
      shown: record.status,
      ended: endedStatus === undefined ? undefined : { status: endedStatus, reason: endedReason },
      trouble: plan.blocked ?? (plan.steps.length > 0 ? lane.failure?.message : undefined),
    });
    this.#publish(record, lane, view);
  }

  #publish(
    record: VmRecord,
    lane: Lane,
    { status, reason }: { readonly status: VmRecord["status"]; readonly reason: string | undefined },
  ): void {
    const lease = leaseText(lane.lease);
    const isLeaseNews = lease !== lane.toldLease;
    if (record.status === status && record.reason === reason && !isLeaseNews) return;
    const { store, events, now } = this.#options;
    store.recordStatus(record.id, status, reason);
    lane.toldLease = lease;
    const type = record.status === status ? "VM_UPDATED" : (STATUS_EVENTS[status] ?? "VM_UPDATED");
    const crash = type === "VM_CRASHED" ? [reason ?? "it crashed", ...lane.lastWords].join("\n") : undefined;
    const message = crash ?? (isLeaseNews ? (lease ?? "its lease is gone") : undefined);
    const address = lane.lease?.address;
    const shown = { ...record, status, reason, address: record.address ?? address };
    events.publish(vmEvent(type, shown, { now: now(), pid: lane.process?.pid, message }));
  }

  #wakeAfter(lane: Lane, delayMs: number): void {
    clearTimeout(lane.timer);
    if (this.#closing.signal.aborted) return;
    lane.timer = setTimeout(() => this.wake(lane.vmId), delayMs);
    lane.timer.unref();
  }

  #watchExit(process: HypervisorProcess): void {
    const key = `${process.pid}:${process.startTicks}`;
    if (this.#watched.has(key)) return;
    this.#watched.add(key);
    void this.#options.runtime
      .waitForExit(process, this.#closing.signal)
      .catch((error: unknown) => {
        if (!this.#closing.signal.aborted)
          this.#options.log.warn({ vm: process.vmId, error }, "a process can't be watched");
      })
      .finally(() => {
        this.#watched.delete(key);
        if (!this.#closing.signal.aborted) this.wake(process.vmId);
      });
  }

  #forgetIfGone(lane: Lane): void {
    if (!lane.settled || lane.dirty || lane.session !== undefined || lane.waiters.size > 0) return;
    if (this.#options.store.getVm(lane.vmId) !== undefined) return;
    clearTimeout(lane.timer);
    this.#lanes.delete(lane.vmId);
  }
}

function isSame(shutdown: { readonly pid: number; readonly startTicks: bigint }, process: HypervisorProcess): boolean {
  return shutdown.pid === process.pid && shutdown.startTicks === process.startTicks;
}

/** Milliseconds until the next attempt after so many that failed before this one. */
function retryDelay(failures: number): number {
  return Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** Math.min(failures, 10));
}
