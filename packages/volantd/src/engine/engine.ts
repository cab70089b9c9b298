/**
 * The loop: observe, plan, execute.
 *
 * Rules of concurrency. A VM's passes never overlap. VMs that are due at the same time share one look at the host, and that look begins only after
 * each of them has finished its last pass, so that no plan is made from a time before its own steps. Rows are read after the look: what is seen and
 * has no row then is an orphan. After a pass with steps the VM is due again, until nothing is left to do. A look costs as much as there are VMs: after one the
 * loop pauses in proportion to the processor time that it took, and who becomes due meanwhile shares the next.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { VolantError, type VmEventType } from "@volant/contract";
import { formatAddress } from "../model/address.ts";
import { dhcpLease, leaseText, type DhcpLease } from "../model/dhcp-lease.ts";
import { hasEnded } from "../model/vm-state.ts";
import { transportText } from "../guest/data-link.ts";
import { overdueAtMs, passedLimitMs, startingSince } from "../plan/overdue.ts";
import { planVm } from "../plan/plan-vm.ts";
import { RESTART_TIMES, steadySince } from "../plan/restart.ts";
import { isSilent } from "../plan/silence.ts";
import { SILENT, vmStatus } from "../plan/status.ts";
import type { DesiredVm, ObservedVm } from "../plan/observed.ts";
import type { Plan, Step } from "../plan/step.ts";
import type { HypervisorProcess } from "../runtime/runtime.ts";
import { Slots } from "../slots.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import type { VmRecord } from "../store/store.ts";
import { HostKeeper } from "./host-keeper.ts";
import { execute, type ExecutorDeps, type Outcome, type StepContext } from "./executors.ts";
import { Lane } from "./lane.ts";
import { desiredVm, observedVm, observedVmIds, observeHost, policyOf, tapOf, type HostView } from "./observe.ts";
import { DEFAULT_HANG_TIMEOUT_MS, restartWishes } from "./restart-wishes.ts";
import { retryDelay } from "./retry-delay.ts";
import { nextRestartAt, vmEvent } from "./vm-view.ts";
import { messageOf } from "../message-of.ts";

export interface EngineLog {
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
}

export interface EngineOptions extends ExecutorDeps {
  /** How often to look though nothing has happened. Default: 10 s. */
  readonly lookEveryMs?: number;
  /** How many VMs' steps are carried out at a time. Default: 128. */
  readonly parallel?: number;
  /** A VM that is not running so long after its hypervisor is up says so. Default: 60 s. */
  readonly startTimeoutMs?: number;
  /** A VM with a restart policy whose agent has been silent for so long is started again; 0: never. Default: 30 s. */
  readonly hangTimeoutMs?: number;
  /** How long a guest's agent gets to end it when it is stopped, before its power button is pressed. Default: 10 s. */
  readonly stopTimeoutMs?: number | undefined;
  /** Processor time that the event loop's thread has used, in milliseconds. Default: the clock, as if it had always worked. */
  readonly busyMs?: () => number;
  /** Called after each pass of a VM, also of one that is gone by then. */
  readonly onPass?: (vmId: number) => void;
  /** Told of each step once it is over. */
  readonly telemetry?: Pick<Telemetry, "step">;
}

const LOOK_EVERY_MS = 10_000;
/**
 * More than launches go on at a time: what comes before a launch is waiting for the kernel and nft mostly, and costs each of many less than one alone. nft changes
 * the entries of all that wait in one transaction.
 */
const PARALLEL = 128;
/**
 * The same for VMs that are to go: their steps mostly wait, for guests to end and for the kernel to take away what it takes away of many at the price of one.
 */
const PARALLEL_ENDS = 1024;
/** Many times what a guest takes, under software emulation and on a busy host, too. */
export const DEFAULT_START_TIMEOUT_MS = 60_000;
/** How many passes are begun before others have a turn. */
const PASSES_AT_ONCE = 50;
/**
 * How long the loop pauses between looks, as a multiple of the processor time that passed on its thread during the last one; and at most. A look that mostly waited,
 * for a lock of the kernel's that a deletion of many links holds, has kept nobody from his work.
 */
const LOOK_PAUSE = 2;
const LONGEST_LOOK_PAUSE_MS = 250;
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
  readonly #endSlots = new Slots(PARALLEL_ENDS);
  readonly #startTimeoutMs: number;
  readonly #passes = new Set<Promise<void>>();
  #turning: Promise<void> | undefined;
  readonly #keeper: HostKeeper;
  /** Something of what all VMs share may have changed: the host is due for a look even where no VM is. */
  #hostDue = false;
  #hostTimer: NodeJS.Timeout | undefined;
  /** VMs that should be running, by what is written down, and whose process was not found, with their generations. */
  readonly #unaccounted = new Map<number, number>();
  /** What the first look showed, until the loop begins. */
  #found: ReadonlySet<number> = new Set();
  /** The newest look, for passes that are to begin: one that has waited for its turn is better served by it than by the one that it was to begin with. */
  #view: HostView | undefined;
  #observeFailures = 0;
  #blindness: string | undefined;
  /** The next look does not begin before this. */
  #nextLookMs = Number.NEGATIVE_INFINITY;
  #lookTimer: NodeJS.Timeout | undefined;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#slots = new Slots(options.parallel ?? PARALLEL);
    this.#startTimeoutMs = options.startTimeoutMs ?? DEFAULT_START_TIMEOUT_MS;
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

  /**
   * Finds running VMs again: from then on they are shown with their processes, and the loop serves whoever wakes it. What is to be done for them waits for
   * {@link begin}.
   */
  async adopt(): Promise<void> {
    const { network, runtime } = this.#options;
    const host = await observeHost(network, runtime);
    for (const process of host.processes) {
      const record = this.#options.store.getVm(process.vmId);
      if (record?.generation === process.generation) this.#laneOf(process.vmId).process = process;
    }
    for (const id of this.#options.store.vmIds()) {
      const record = this.#options.store.getVm(id);
      if (record === undefined || !isThoughtToRun(record) || this.#lanes.get(id)?.process !== undefined) continue;
      this.#unaccounted.set(id, record.generation);
    }
    this.#found = observedVmIds(host, this.#options.store.installation);
  }

  /** Has every VM looked at, begins to remove what has our mark and no row, and keeps the loop going from then on. After {@link adopt}; once is enough. */
  begin(): void {
    if (this.#lookTimer !== undefined) return;
    this.#wakeAll(this.#found);
    this.#found = new Set();
    const { signal } = this.#closing;
    void this.#options.network
      .watch((vmId) => this.#networkChanged(vmId), signal)
      .catch((error: unknown) =>
        this.#options.log.error({ error }, "network events end: changes are seen by the timer only"),
      );
    this.#lookTimer = setInterval(() => void this.#lookAround(), this.#options.lookEveryMs ?? LOOK_EVERY_MS);
    this.#lookTimer.unref();
  }

  /**
   * Resolves once it is written down how those VMs ended that were found without their process, or after a time: until then they would be shown as running.
   * Where there are such VMs, the loop begins.
   */
  async endsSeen(limitMs: number): Promise<void> {
    const { store } = this.#options;
    if (this.#unaccounted.size > 0) this.begin();
    const waits = [...this.#unaccounted].map(async ([id, generation]) => {
      const isSeen = ({ failure }: Lane): boolean => {
        const record = store.getVm(id);
        return record?.generation !== generation || hasEnded(record) || failure !== undefined;
      };
      try {
        await this.until(id, isSeen, limitMs, "how the VM ended is not seen yet");
      } catch (error) {
        this.#options.log.warn({ vm: id, error }, "how a VM ended is not known yet");
      }
    });
    await Promise.all(waits);
    this.#unaccounted.clear();
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

  /** Why the host can't be observed; undefined while it can. */
  get blindness(): string | undefined {
    return this.#blindness;
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
   * @param signal ends the waiting, too: nobody is there for its outcome any more
   * @throws VolantError `timeout`; `not_ready` when the engine closes first; the signal's reason
   */
  async until(
    vmId: number,
    done: (lane: Lane) => boolean,
    timeoutMs: number,
    what: string,
    signal?: AbortSignal,
  ): Promise<void> {
    const lane = this.#laneOf(vmId);
    const closing = this.#closing.signal;
    await lane.waiters.until({ done: () => done(lane), timeoutMs, what: () => what, signal, closing });
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

  #wakeAll(found: ReadonlySet<number>): void {
    for (const id of new Set([...found, ...this.#options.store.vmIds()])) this.wake(id);
  }

  async #lookAround(): Promise<void> {
    try {
      this.#wakeAll(observedVmIds(await this.#look(), this.#options.store.installation));
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
    try {
      for (const id of this.#options.store.vmIds()) this.wake(id);
    } catch (error) {
      this.#options.log.error({ error }, "the VMs can't be read, and are looked at by the timer");
    }
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
        this.#forgetView();
        if (this.#hostDue || this.#due().length > 0) this.#schedule();
      });
  }

  #due(): Lane[] {
    return [...this.#lanes.values()].filter((lane) => lane.dirty && !lane.busy);
  }

  async #turn(): Promise<void> {
    // What happens in the same instant is looked at together.
    await new Promise(setImmediate);
    await this.#pauseBetweenLooks();
    const batch = this.#due();
    if ((batch.length === 0 && !this.#hostDue) || this.#closing.signal.aborted) return;
    this.#hostDue = false;
    for (const lane of batch) {
      lane.busy = true;
      lane.dirty = false;
    }
    const { monotonicMs, busyMs = monotonicMs } = this.#options;
    const startedMs = busyMs();
    try {
      this.#view = await this.#look();
      this.#observeFailures = 0;
      this.#blindness = undefined;
      this.#nextLookMs = monotonicMs() + Math.min(LONGEST_LOOK_PAUSE_MS, (busyMs() - startedMs) * LOOK_PAUSE);
    } catch (error) {
      this.#options.log.error({ error }, "the host can't be observed");
      const delayMs = retryDelay(this.#observeFailures++);
      this.#blindness = messageOf(error);
      for (const lane of batch) {
        lane.busy = false;
        this.#wakeAfter(lane, delayMs);
      }
      this.#wakeHostAfter(delayMs);
      return;
    }
    for (const [index, lane] of batch.entries()) {
      // Most passes find nothing to do and end at once: a thousand of them would hold up whoever asks for something.
      if (index > 0 && index % PASSES_AT_ONCE === 0) await new Promise(setImmediate);
      this.#startPass(lane);
    }
  }

  /** A look at a thousand VMs is not kept for nobody. */
  #forgetView(): void {
    if (this.#turning === undefined && this.#passes.size === 0) this.#view = undefined;
  }

  async #pauseBetweenLooks(): Promise<void> {
    const pauseMs = this.#nextLookMs - this.#options.monotonicMs();
    const { signal } = this.#closing;
    if (pauseMs > 0) await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {});
  }

  #startPass(lane: Lane): void {
    const pass = (this.#isToGo(lane.vmId) ? this.#endSlots : this.#slots)
      .run(() => this.#pass(lane))
      .catch((error: unknown) => this.#fail(lane, error))
      .finally(() => {
        lane.busy = false;
        this.#passes.delete(pass);
        this.#forgetView();
        lane.notify();
        this.#forgetIfGone(lane);
        this.#options.onPass?.(lane.vmId);
        if (lane.dirty) this.#schedule();
      });
    this.#passes.add(pass);
  }

  #isToGo(vmId: number): boolean {
    try {
      return (this.#options.store.getVm(vmId)?.desired ?? "absent") === "absent";
    } catch {
      // The pass itself will fail by it, and say so.
      return false;
    }
  }

  async #pass(lane: Lane): Promise<void> {
    const { monotonicMs } = this.#options;
    const nowMs = monotonicMs();
    await this.#readSilence(lane, nowMs);
    const { record, plan } = this.#plan(lane, nowMs);
    const waitMs = lane.failure === undefined ? 0 : lane.failure.retryAtMs - monotonicMs();
    if (waitMs > 0 && plan.steps.length > 0) {
      this.#wakeAfter(lane, waitMs);
      return;
    }
    const signal = this.#abandon.signal;
    const wake = this.#waker(lane.vmId);
    for (const step of plan.steps) {
      const outcome = await this.#execute({ deps: this.#options, lane, vm: record, signal, wake }, step);
      if (outcome === "replan") break;
      if (this.#abandon.signal.aborted) return;
    }
    if (plan.steps.length > 0) lane.dirty = true;
    else if (plan.blocked === undefined) lane.failure = undefined;
    lane.settled = plan.steps.length === 0 && plan.blocked === undefined && plan.wakeAtMs === undefined && !lane.dirty;
  }

  /**
   * Compares a VM with what the newest look shows of it, and shows its state. Nothing in it waits: what a user orders meanwhile would be overwritten. And no pass keeps
   * the look while it waits for its steps.
   */
  #plan(lane: Lane, nowMs: number): { readonly record: VmRecord | undefined; readonly plan: Plan } {
    const { store, runtime, network, monotonicMs } = this.#options;
    const host = this.#view;
    if (host === undefined) throw new Error("a pass began before the host was looked at");
    const record = store.getVm(lane.vmId);
    const isPaused = (process: HypervisorProcess): boolean => runtime.isPaused(process);
    const context = { installation: store.installation, nowMs, isPaused };
    if (record !== undefined) this.#followLease(record, host);
    lane.lease = record === undefined ? undefined : this.#leaseOf(record, lane);
    const observed = observedVm(
      lane,
      { tap: record?.tap, bridge: record?.spec.bridge, mac: record?.mac },
      host,
      context,
    );
    const wanted = record === undefined ? undefined : desiredVm(record, runtime, network.lease(record.id));
    lane.excusedAtMs = observed.guest?.excusedAtMs;
    lane.steady = steadySince(wanted, observed, lane.steady);
    const { stopTimeoutMs } = this.#options;
    const vm = record && wanted && { ...wanted, stopTimeoutMs, ...this.#restartWishes(record, lane, observed.nowMs) };
    lane.process = observed.processes.find(({ generation }) => generation === record?.generation);
    lane.shutdowns = lane.shutdowns.filter((shutdown) =>
      observed.processes.some((process) => isSame(shutdown, process)),
    );
    for (const process of observed.processes) this.#watchExit(process);
    const plan = planVm(vm, observed);
    lane.starting = startingSince(vm, observed, lane.starting);
    if (record !== undefined && wanted !== undefined) this.#show(record, wanted, lane, observed, plan);
    clearTimeout(lane.timer);
    const overdueAt = overdueAtMs(lane.starting, this.#startTimeoutMs, observed.nowMs);
    const wakeAtMs = Math.min(
      ...[plan.wakeAtMs, plan.lookAtMs, overdueAt].map((atMs) => atMs ?? Number.POSITIVE_INFINITY),
    );
    if (Number.isFinite(wakeAtMs)) this.#wakeAfter(lane, Math.max(0, wakeAtMs - monotonicMs()));
    return { record, plan };
  }

  /** Made apart from the pass: it lives as long as the guest's session, and would keep all that the pass has seen. */
  #waker(vmId: number): () => void {
    return () => this.wake(vmId);
  }

  async #execute(context: StepContext, step: Step): Promise<Outcome> {
    const { telemetry, monotonicMs } = this.#options;
    const { vmId } = context.lane;
    const startedMs = monotonicMs();
    const tell = (failure?: string): void =>
      telemetry?.step({ vmId, kind: step.kind, startedMs, endedMs: monotonicMs(), failure });
    try {
      const outcome = await execute(context, step);
      tell();
      return outcome;
    } catch (error) {
      tell(messageOf(error));
      throw error;
    }
  }

  /** What the console of a guest whose agent has fallen silent says: it may tell why. */
  async #readSilence(lane: Lane, nowMs: number): Promise<void> {
    const { session, vmId } = lane;
    const { store, runtime, log } = this.#options;
    if (session === undefined || !isSilent(session.view(), session.generation, nowMs)) return;
    const record = store.getVm(vmId);
    if (record === undefined || record.desired === "absent" || record.reason === SILENT) return;
    try {
      lane.lastWords = (await runtime.exitReport(vmId, session.generation)).consoleTail;
    } catch (error) {
      log.warn({ vm: vmId, error }, "the console of a silent guest can't be read");
    }
  }

  #restartWishes(record: VmRecord, lane: Lane, nowMs: number): ReturnType<typeof restartWishes> {
    const { now, restartTimes: times = RESTART_TIMES, hangTimeoutMs = DEFAULT_HANG_TIMEOUT_MS } = this.#options;
    return restartWishes(record, lane, { wallMs: now().getTime(), nowMs }, { times, hangTimeoutMs });
  }

  /** A guest that gets its address from a DHCP server is held to what that server is seen to give it. */
  #followLease(record: VmRecord, host: HostView): void {
    const policy = policyOf(record, undefined);
    if (policy?.mode !== "dhcp" || !policy.antiSpoof) return;
    const tap = tapOf(host, record.id, policy.tap);
    if (tap === undefined) return;
    try {
      this.#options.network.followLease({ vmId: record.id, link: tap.index, mac: record.mac });
    } catch (error) {
      // The tap may have gone meanwhile, which the next look shows.
      this.#options.log.warn({ vm: record.id, error }, "the leases of a guest can't be followed");
    }
  }

  /** The lease that a guest reports. It can't have the host's own address in the managed network, nor one that was leased to another VM. */
  #leaseOf(record: VmRecord, lane: Lane): DhcpLease | undefined {
    const { session } = lane;
    if (record.spec.mode !== "dhcp" || session === undefined || session.generation !== record.generation) {
      return undefined;
    }
    const { pool, store, network } = this.#options;
    // Where the network is not Volant's to make, nothing is held, and nobody looks at what servers say.
    const isHeld = network.manages && policyOf(record, undefined)?.antiSpoof === true;
    return dhcpLease(session.network, (address) => {
      if (isHeld && network.lease(record.id)?.address !== formatAddress(address)) {
        return "an address that no DHCP server was seen to give it";
      }
      if (address === pool.gateway) return "this host's";
      const holder = store.vmWithAddress(address);
      return holder === undefined || holder === record.id ? undefined : "leased to another VM";
    });
  }

  #fail(lane: Lane, error: unknown): void {
    if (this.#closing.signal.aborted) return;
    const { log, monotonicMs, store } = this.#options;
    const message = messageOf(error);
    if (error instanceof VolantError || (error as Error).name === "NetlinkError") {
      log.warn({ vm: lane.vmId, reason: message }, "a step failed and is tried again");
    } else log.error({ vm: lane.vmId, error }, "a step failed in a way that was not expected");
    const attempts = (lane.failure?.attempts ?? 0) + 1;
    const delayMs = retryDelay(attempts - 1);
    lane.failure = { message, attempts, retryAtMs: monotonicMs() + delayMs };
    this.#wakeAfter(lane, delayMs);
    try {
      const record = store.getVm(lane.vmId);
      if (record === undefined) return;
      const deleting = record.desired === "absent" ? `deleting: ${message}` : message;
      this.#publish(record, lane, { status: record.status, reason: deleting });
    } catch (failure) {
      // The store itself is what fails: a full disk, say. The log tells of it.
      if (failure instanceof VolantError) return;
      log.error({ vm: lane.vmId, error: failure }, "what failed can't be written down");
    }
  }

  /** Writes down what users see of the VM, where it has changed, and tells whoever listens. */
  #show(record: VmRecord, vm: DesiredVm, lane: Lane, observed: ObservedVm, plan: Plan): void {
    const { endedStatus, endedReason } = record;
    const view = vmStatus({
      vm,
      observed,
      shown: record.status,
      ended: endedStatus === undefined ? undefined : { status: endedStatus, reason: endedReason },
      trouble: plan.blocked ?? (plan.steps.length > 0 ? lane.failure?.message : undefined),
      passedLimitMs: passedLimitMs(lane.starting, this.#startTimeoutMs, observed.nowMs),
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
    const transport = lane.session === undefined ? undefined : transportText(lane.session.transport);
    const isTransportNews = transport !== undefined && transport !== lane.toldTransport;
    if (record.status === status && record.reason === reason && !isLeaseNews && !isTransportNews) return;
    const { store, events, now } = this.#options;
    const type = record.status === status ? "VM_UPDATED" : (STATUS_EVENTS[status] ?? "VM_UPDATED");
    const restartAt = type === "VM_CRASHED" || type === "VM_STOPPED" ? nextRestartAt(record) : undefined;
    const again = restartAt === undefined ? undefined : `it is started again at ${restartAt}`;
    const words = [reason ?? "it crashed", ...lane.lastWords, ...(again === undefined ? [] : [again])];
    const isSilence = reason === SILENT && record.reason !== SILENT;
    const crash = type === "VM_CRASHED" || isSilence ? words.join("\n") : again;
    const news = isLeaseNews ? (lease ?? "its lease is gone") : isTransportNews ? transport : undefined;
    const message = crash ?? news;
    const address = lane.lease?.address;
    const shown = { ...record, status, reason, address: record.address ?? address };
    store.together(() => {
      store.recordStatus(record.id, status, reason);
      events.publish(vmEvent(type, shown, { now: now(), pid: lane.process?.pid, message }));
    });
    lane.toldLease = lease;
    if (isTransportNews) lane.toldTransport = transport;
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
    void this.#options.runtime.waitForExit(process).then(
      () => this.#exited(process, key),
      (error: unknown) => this.#exited(process, key, error),
    );
  }

  async #exited(process: HypervisorProcess, key: string, failure?: unknown): Promise<void> {
    try {
      if (failure !== undefined) throw failure;
      // Nobody is there for its session any more, which would go on trying to connect until the planner has it detached.
      await this.#endSession(process);
    } catch (error) {
      if (!this.#closing.signal.aborted) {
        this.#options.log.warn({ vm: process.vmId, error }, "a process can't be watched");
      }
    } finally {
      this.#watched.delete(key);
      if (!this.#closing.signal.aborted) this.wake(process.vmId);
    }
  }

  async #endSession({ vmId, generation, pid, startTicks }: HypervisorProcess): Promise<void> {
    const lane = this.#lanes.get(vmId);
    const isOther = lane?.process !== undefined && !isSame({ pid, startTicks }, lane.process);
    if (lane?.session?.generation === generation && !isOther) await lane.session.close();
  }

  #isGone(vmId: number): boolean {
    try {
      return this.#options.store.getVm(vmId) === undefined;
    } catch {
      // Whoever can't read its row does not know.
      return false;
    }
  }

  #forgetIfGone(lane: Lane): void {
    if (!lane.settled || lane.dirty || lane.session !== undefined || lane.waiters.count > 0) return;
    if (!this.#isGone(lane.vmId)) return;
    clearTimeout(lane.timer);
    this.#lanes.delete(lane.vmId);
  }
}

/** Whether it is shown as one that has a process. */
function isThoughtToRun({ desired, generation, startedGeneration, status }: VmRecord): boolean {
  return desired === "running" && startedGeneration === generation && (status === "running" || status === "starting");
}

function isSame(shutdown: { readonly pid: number; readonly startTicks: bigint }, process: HypervisorProcess): boolean {
  return shutdown.pid === process.pid && shutdown.startTicks === process.startTicks;
}
