/**
 * Keeps deployments as they are wanted: looks at their rows and VMs, plans, carries out. Woken by what users ask, by every pass of a replica, and by a slow
 * timer. Everything that has to survive is in rows; back-offs and time limits begin anew with volantd.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { VolantError } from "@volant/contract";
import { planDeployment, type DeploymentStep, type ObservedReplica } from "../plan/plan-deployment.ts";
import { judged, remember, type ReplicaMemory } from "../plan/replica-memory.ts";
import { rolloutView, type RolloutView } from "../plan/rollout.ts";
import type { DeploymentRecord } from "../store/deployment-store.ts";
import type { Store, VmRecord } from "../store/store.ts";
import { deploymentEvent, replicaCondition } from "./deployment-view.ts";
import type { Engine, EngineLog } from "./engine.ts";
import type { EventHub } from "./event-hub.ts";
import { retryDelay } from "./retry-delay.ts";
import type { Patience } from "./use-cases.ts";
import type { ReplicaExecutor } from "./replica-executor.ts";
import { Waiters } from "./waiters.ts";
import { messageOf } from "../message-of.ts";

export interface DeploymentKeeperOptions {
  readonly store: Store;
  readonly engine: Pick<Engine, "lane">;
  readonly executor: ReplicaExecutor;
  readonly events: Pick<EventHub, "publish">;
  readonly log: EngineLog;
  readonly now: () => Date;
  readonly monotonicMs: () => number;
  /** How often to look though nothing has happened. Default: 10 s. */
  readonly lookEveryMs?: number;
}

const LOOK_EVERY_MS = 10_000;
/** A look at a thousand replicas takes a while, and each of them asks for one: looks rest for so many times as long as they took. */
const REST_FACTOR = 4;
const LONGEST_REST_MS = 1000;

/** What is held of one deployment between two looks. None of it needs to survive. */
class Post {
  due = false;
  running = false;
  /** The last look found no row. */
  gone = false;
  /** How long the last look took. */
  lookMs = 0;
  timer: NodeJS.Timeout | undefined;
  failure: { readonly message: string; readonly attempts: number; readonly retryAtMs: number } | undefined;
  /** What listeners were told last. */
  told: string | undefined;
  readonly memories = new Map<number, ReplicaMemory>();
  readonly waiters = new Waiters();
}

interface Sight extends ObservedReplica {
  readonly memory: ReplicaMemory;
}

export class DeploymentKeeper {
  readonly #options: DeploymentKeeperOptions;
  readonly #posts = new Map<number, Post>();
  /** Deployment by VM, as of the last look: a VM that is gone has no row to ask. */
  readonly #owners = new Map<number, number>();
  readonly #runs = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  #lookTimer: NodeJS.Timeout | undefined;

  constructor(options: DeploymentKeeperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#wakeAll();
    this.#lookTimer = setInterval(() => this.#wakeAll(), this.#options.lookEveryMs ?? LOOK_EVERY_MS);
    this.#lookTimer.unref();
  }

  /** Steps that are under way finish. */
  async close(): Promise<void> {
    this.#closing.abort();
    clearInterval(this.#lookTimer);
    for (const post of this.#posts.values()) {
      clearTimeout(post.timer);
      post.waiters.notify();
    }
    await Promise.all(this.#runs);
  }

  /** Something about a VM may have changed. Cheap for one that is no replica. */
  vmChanged(vmId: number): void {
    const id = this.#owners.get(vmId);
    if (id !== undefined) this.wake(id);
  }

  /** @param anew forget earlier failures: the user has spoken */
  wake(id: number, anew = false): void {
    if (this.#closing.signal.aborted) return;
    const post = this.#postOf(id);
    if (anew) post.failure = undefined;
    post.due = true;
    if (post.running) return;
    post.running = true;
    const run = this.#run(id, post)
      .catch((error: unknown) =>
        this.#options.log.error({ deployment: id, error }, "a deployment can't be looked after"),
      )
      .finally(() => {
        post.running = false;
        this.#runs.delete(run);
        if (post.due) this.wake(id);
        else if (post.gone) this.#forget(id, post);
      });
    this.#runs.add(run);
  }

  /** How far a deployment is, as of now. */
  rollout(record: DeploymentRecord): RolloutView {
    const sights = this.#sights(record, this.#options.store.deployments.replicas(record.id));
    return rolloutView(record, sights, this.#posts.get(record.id)?.failure?.message);
  }

  /** Resolves once nothing is left of a deployment. @throws VolantError as {@link until} does */
  untilGone(id: number, patience: Patience, what: () => string): Promise<void> {
    return this.until(id, () => this.#posts.get(id)?.gone === true, patience, what);
  }

  /**
   * Resolves once `done` holds, which is asked after each look at this deployment.
   *
   * @throws VolantError `timeout`, `not_ready` when volantd stops first; the signal's reason; what `done` throws
   */
  async until(id: number, done: () => boolean, patience: Patience, what: () => string): Promise<void> {
    const post = this.#postOf(id);
    try {
      await post.waiters.until({ ...patience, done, what, closing: this.#closing.signal });
    } finally {
      if (post.gone) this.#forget(id, post);
    }
  }

  #postOf(id: number): Post {
    let post = this.#posts.get(id);
    if (post === undefined) {
      post = new Post();
      this.#posts.set(id, post);
    }
    return post;
  }

  #forget(id: number, post: Post): void {
    if (post.waiters.count > 0) return;
    clearTimeout(post.timer);
    this.#posts.delete(id);
    for (const [vmId, owner] of this.#owners) if (owner === id) this.#owners.delete(vmId);
  }

  #wakeAll(): void {
    try {
      for (const { id } of this.#options.store.deployments.list()) this.wake(id);
    } catch (error) {
      this.#options.log.error({ error }, "deployments can't be looked after");
    }
  }

  /** What is seen of replicas now, with what is remembered of them. */
  #sights({ id, minReadyMs }: DeploymentRecord, vms: readonly VmRecord[]): Sight[] {
    const memories = this.#posts.get(id)?.memories;
    const nowMs = this.#options.monotonicMs();
    return vms.flatMap((vm) => {
      const { id: vmId, replica, generation } = vm;
      if (replica === undefined) return [];
      const condition = replicaCondition(vm, this.#options.engine.lane(vmId), nowMs);
      const seen = { version: replica.version, generation, condition };
      const memory = remember(memories?.get(vmId), seen, nowMs, minReadyMs);
      const { unreadySinceMs, readySinceMs, startAtMs } = memory;
      const isSettling = readySinceMs !== undefined && unreadySinceMs !== undefined;
      const settlesAtMs = isSettling ? readySinceMs + minReadyMs : undefined;
      const { index, version } = replica;
      const judgement = judged(condition, memory, nowMs);
      return [{ vmId, index, version, condition: judgement, unreadySinceMs, settlesAtMs, startAtMs, memory }];
    });
  }

  /** Takes in what was seen of replicas, and what is gone. */
  #note(id: number, post: Post, sights: readonly Sight[]): void {
    const there = new Set(sights.map(({ vmId }) => vmId));
    for (const vmId of post.memories.keys()) if (!there.has(vmId)) post.memories.delete(vmId);
    for (const [vmId, owner] of this.#owners) if (owner === id && !there.has(vmId)) this.#owners.delete(vmId);
    for (const { vmId, memory } of sights) {
      this.#owners.set(vmId, id);
      post.memories.set(vmId, memory);
    }
  }

  async #run(id: number, post: Post): Promise<void> {
    // What happens in the same instant is looked at together.
    await new Promise(setImmediate);
    while (post.due && !this.#closing.signal.aborted) {
      post.due = false;
      const record = this.#options.store.deployments.get(id);
      post.gone = record === undefined;
      if (record !== undefined) await this.#pass(record, post);
      post.waiters.notify();
      if (post.due) await this.#rest(REST_FACTOR * post.lookMs);
    }
  }

  async #rest(durationMs: number): Promise<void> {
    const { signal } = this.#closing;
    try {
      await sleep(Math.min(LONGEST_REST_MS, durationMs), undefined, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async #pass(record: DeploymentRecord, post: Post): Promise<void> {
    const { store, monotonicMs } = this.#options;
    const beganAtMs = monotonicMs();
    const observed = this.#sights(record, store.deployments.replicas(record.id));
    this.#note(record.id, post, observed);
    const { steps, wakeAtMs } = planDeployment(record, observed, monotonicMs());
    this.#tell(record, post, observed);
    post.lookMs = monotonicMs() - beganAtMs;
    const retryAtMs = steps.length > 0 ? post.failure?.retryAtMs : undefined;
    if (retryAtMs !== undefined && retryAtMs > monotonicMs()) {
      this.#wakeAt(record.id, post, Math.min(retryAtMs, wakeAtMs ?? retryAtMs));
      return;
    }
    if (steps.length === 0) post.failure = undefined;
    if (wakeAtMs !== undefined) this.#wakeAt(record.id, post, wakeAtMs);
    await this.#execute(record, post, steps, observed);
  }

  /** One kind of step that fails does not keep another from being done. */
  async #execute(
    record: DeploymentRecord,
    post: Post,
    steps: readonly DeploymentStep[],
    observed: readonly ObservedReplica[],
  ): Promise<void> {
    const failed = new Map<DeploymentStep["kind"], unknown>();
    for (const step of steps) {
      if (failed.has(step.kind) || this.#closing.signal.aborted) continue;
      try {
        await this.#step(record, step);
      } catch (error) {
        failed.set(step.kind, error);
      }
    }
    const [error] = failed.values();
    if (failed.size > 0) this.#fail(record, post, observed, error);
    else if (steps.length > 0) {
      post.failure = undefined;
      post.due = true;
    }
  }

  async #step(record: DeploymentRecord, step: DeploymentStep): Promise<void> {
    const { store, executor, events, now } = this.#options;
    const { id, name, version } = record;
    switch (step.kind) {
      case "fail": {
        const failure = failureText(record, store.getVm(step.vmId));
        return store.deployments.recordRollout(id, version, { failure });
      }
      case "complete":
        return store.deployments.recordRollout(id, version, { failure: undefined });
      case "forget":
        return store.together(() => {
          store.deployments.remove(id);
          events.publish(deploymentEvent("DEPLOYMENT_DELETED", name, { now: now() }));
        });
      default:
        return executor.execute(id, step);
    }
  }

  #fail(record: DeploymentRecord, post: Post, observed: readonly ObservedReplica[], error: unknown): void {
    const { id } = record;
    const { log, monotonicMs } = this.#options;
    const message = messageOf(error);
    if (error instanceof VolantError) log.warn({ deployment: id, reason: message }, "a step failed and is tried again");
    else log.error({ deployment: id, error }, "a step of a deployment failed in a way that was not expected");
    const attempts = (post.failure?.attempts ?? 0) + 1;
    const retryAtMs = monotonicMs() + retryDelay(attempts - 1);
    post.failure = { message, attempts, retryAtMs };
    this.#wakeAt(id, post, retryAtMs);
    this.#tell(record, post, observed);
  }

  #wakeAt(id: number, post: Post, atMs: number): void {
    clearTimeout(post.timer);
    if (this.#closing.signal.aborted) return;
    // A timer may fire a little before its time: one that comes too early would find nothing to do.
    post.timer = setTimeout(() => this.wake(id), Math.max(0, atMs - this.#options.monotonicMs()) + 1);
    post.timer.unref();
  }

  /** Tells listeners of every change that somebody may wait for. */
  #tell(record: DeploymentRecord, post: Post, observed: readonly ObservedReplica[]): void {
    const { ready, state, reason } = rolloutView(record, observed, post.failure?.message);
    const isTrouble = state === "failed" || post.failure !== undefined;
    const message = `version ${record.version} ${state}, ${ready} of ${record.replicas} replicas are ready`;
    const news = `${message} ${isTrouble ? reason : ""}`;
    if (post.told === news) return;
    const isFirst = post.told === undefined;
    post.told = news;
    if (isFirst) return;
    const { events, now } = this.#options;
    const told = { now: now(), message, reason: isTrouble ? reason : undefined };
    events.publish(deploymentEvent("DEPLOYMENT_UPDATED", record.name, told));
  }
}

function failureText({ version, readyTimeoutMs, minReadyMs }: DeploymentRecord, replica: VmRecord | undefined): string {
  const after = `${(readyTimeoutMs + minReadyMs) / 1000} s after it was given version ${version}`;
  if (replica === undefined) return `a replica was gone ${after}`;
  const { spec, status, reason } = replica;
  const what = minReadyMs === 0 ? "is not ready" : `has not been ready for ${minReadyMs / 1000} s,`;
  return `${spec.name} ${what} ${after}: it is ${status}${reason === undefined ? "" : ` (${reason})`}`;
}
