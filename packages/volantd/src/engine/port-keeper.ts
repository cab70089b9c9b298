/**
 * Keeps the ports of this host that VMs have published listened on: for as long as a VM exists, whether it runs or not, so that no other program takes
 * its port meanwhile. What is desired is in the store, what is listened on is known here, and the plan is plan/plan-ports.ts. A port that can't be
 * listened on is tried again, and says why.
 */
import { VolantError } from "@volant/contract";
import {
  chosenPorts,
  endpointText,
  isChosen,
  overlaps,
  portKey,
  type PublishedPort,
  type VmPort,
  type WantedPort,
} from "../model/published-port.ts";
import { planPorts } from "../plan/plan-ports.ts";
import type { Store } from "../store/store.ts";
import type { EngineLog } from "./engine.ts";
import type { EventHub } from "./event-hub.ts";
import { vmEvent } from "./vm-view.ts";
import { messageOf } from "../message-of.ts";

/** Where connections go. */
export type PortTarget = Pick<VmPort, "vmId" | "guestPort">;

export interface PortKeeperOptions {
  readonly store: Pick<Store, "publishedPorts" | "checkPort" | "getVm">;
  readonly events: Pick<EventHub, "publish">;
  readonly log: EngineLog;
  readonly now: () => Date;
  readonly monotonicMs: () => number;
  /**
   * Listens, and asks for each connection where it goes. @throws VolantError `in_use`, or another one that says why not
   */
  readonly listen: (
    port: Pick<PublishedPort, "address" | "hostPort">,
    target: () => PortTarget,
  ) => Promise<{ close(): void }>;
  /** Pause before a port is tried again for the first time; doubles up to 32 times as much. Default: 500 ms. */
  readonly retryMs?: number;
}

export interface PortState {
  readonly listening: boolean;
  readonly reason?: string | undefined;
}

/** Ports that are listened on for somebody who has not written them down yet. */
export interface PortClaim {
  /** In the order in which they were wanted. */
  readonly ports: readonly PublishedPort[];
  /** They are written down, as this VM's. To be called in the same turn as that. */
  keep(vmId: number): void;
  /** Lets them go. */
  release(): void;
}

/** No VM: what comes while a port is only claimed. Ids of VMs begin at 1. */
const NOBODY = 0;

const RETRY_MS = 500;
const MOST_DOUBLINGS = 5;

interface Held {
  port: VmPort;
  readonly listener: { close(): void };
}

interface Failure {
  readonly port: VmPort;
  readonly reason: string;
  readonly attempts: number;
  readonly retryAtMs: number;
}

export class PortKeeper {
  readonly #options: PortKeeperOptions;
  readonly #held = new Map<string, Held>();
  readonly #failures = new Map<string, Failure>();
  #lastChosen: number | undefined;
  #syncing: Promise<void> | undefined;
  #again = false;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: PortKeeperOptions) {
    this.#options = options;
  }

  /** Whether a recorded port is listened on, and why not. */
  state(port: PublishedPort): PortState {
    const key = portKey(port);
    if (this.#held.has(key)) return { listening: true };
    return { listening: false, reason: this.#failures.get(key)?.reason };
  }

  /**
   * Listens on ports before they are written down, and chooses those that may be any.
   *
   * @param vmId whose they will be; undefined for a VM that is still to be created
   * @param current ports among `wanted` that are recorded as this VM's already: these are left as they are
   * @throws VolantError `in_use` (another VM's, or another program's), `invalid`, `not_ready`, `exhausted`; nothing is held then
   */
  async claim(
    wanted: readonly WantedPort[],
    vmId?: number,
    current: readonly PublishedPort[] = [],
  ): Promise<PortClaim> {
    const claimed: Held[] = [];
    const release = () => {
      for (const held of claimed) this.#close(held);
      // What made room for them has its place back.
      void this.sync();
    };
    const owned = new Set(current.map(portKey));
    const ports: PublishedPort[] = [];
    try {
      // Those that name their port first: what is chosen must not take it.
      for (const port of wanted) {
        const { hostPort } = port;
        if (hostPort === undefined) continue;
        const fixed = { ...port, hostPort };
        this.#options.store.checkPort(vmId, fixed);
        if (!owned.has(portKey(fixed))) claimed.push(await this.#claim(fixed, vmId));
      }
      for (const port of wanted) {
        if (port.hostPort !== undefined) {
          ports.push({ ...port, hostPort: port.hostPort });
          continue;
        }
        const held = await this.#choose(port);
        claimed.push(held);
        ports.push({ ...port, hostPort: held.port.hostPort });
      }
    } catch (error) {
      release();
      throw error;
    }
    return {
      ports,
      keep: (owner) => {
        for (const held of claimed) held.port = { ...held.port, vmId: owner };
      },
      release,
    };
  }

  async #claim(port: PublishedPort, vmId: number | undefined): Promise<Held> {
    for (const { port: other } of this.#held.values()) {
      if (!overlaps(other, port) || other.vmId !== NOBODY) continue;
      throw new VolantError("in_use", `port ${endpointText(port)} of this host is about to be another VM's`);
    }
    for (const held of this.#held.values()) {
      // The same port at another address, which this VM gives up for it.
      if (held.port.vmId === vmId && overlaps(held.port, port)) this.#close(held);
    }
    return this.#open({ ...port, vmId: NOBODY });
  }

  async #choose(wanted: WantedPort): Promise<Held> {
    const recorded = this.#options.store.publishedPorts();
    const taken = new Set(
      [...recorded, ...[...this.#held.values()].map(({ port }) => port)].map((port) => port.hostPort),
    );
    this.#lastChosen ??= Math.max(0, ...[...taken].filter(isChosen));
    for (const hostPort of chosenPorts(taken, this.#lastChosen)) {
      const port = { ...wanted, hostPort };
      try {
        this.#options.store.checkPort(undefined, port);
        const held = await this.#open({ ...port, vmId: NOBODY });
        this.#lastChosen = hostPort;
        return held;
      } catch (error) {
        if (!(error instanceof VolantError) || error.code !== "in_use") throw error;
      }
    }
    throw new VolantError(
      "exhausted",
      `no port of ${wanted.address} is free for port ${wanted.guestPort} of the guest`,
    );
  }

  async #open(port: VmPort): Promise<Held> {
    let held: Held | undefined;
    const target = () => held?.port ?? port;
    const listener = await this.#options.listen(port, target);
    held = { port, listener };
    const key = portKey(port);
    if (this.#closed || this.#held.has(key)) {
      listener.close();
      throw new VolantError("not_ready", "volantd is stopping");
    }
    this.#held.set(key, held);
    return held;
  }

  #close(held: Held): void {
    const key = portKey(held.port);
    if (this.#held.get(key) === held) this.#held.delete(key);
    held.listener.close();
  }

  /** Makes what is listened on agree with the store. Resolves when it does, but for what has to be tried again. */
  sync(): Promise<void> {
    this.#again = true;
    this.#syncing ??= this.#run()
      .catch((error: unknown) => this.#options.log.error({ error }, "published ports can't be looked after"))
      .finally(() => (this.#syncing = undefined));
    return this.#syncing;
  }

  async #run(): Promise<void> {
    while (this.#again && !this.#closed) {
      this.#again = false;
      const desired = this.#options.store.publishedPorts();
      const held = [...this.#held.values()].filter(({ port }) => port.vmId !== NOBODY);
      const plan = planPorts(
        desired,
        held.map(({ port }) => port),
      );
      for (const port of plan.close) {
        const found = this.#held.get(portKey(port));
        if (found !== undefined) this.#close(found);
      }
      this.#forgetFailures(desired);
      const nowMs = this.#options.monotonicMs();
      for (const port of plan.open) {
        if ((this.#failures.get(portKey(port))?.retryAtMs ?? nowMs) > nowMs) continue;
        await this.#try(port);
        // While that was waited for, the port may have been given up, or given to another VM.
        this.#again = true;
      }
    }
    this.#wakeForRetry();
  }

  async #try(port: VmPort): Promise<void> {
    const { log, monotonicMs, retryMs = RETRY_MS } = this.#options;
    const key = portKey(port);
    const before = this.#failures.get(key);
    try {
      await this.#open(port);
      this.#failures.delete(key);
      if (before !== undefined) this.#tell(port, `port ${endpointText(port)} is listened on`);
    } catch (error) {
      if (this.#closed) return;
      const reason = messageOf(error);
      const attempts = (before?.attempts ?? 0) + 1;
      const delayMs = retryMs * 2 ** Math.min(attempts - 1, MOST_DOUBLINGS);
      this.#failures.set(key, { port, reason, attempts, retryAtMs: monotonicMs() + delayMs });
      if (before?.reason === reason) return;
      const fields = { vm: port.vmId, reason };
      if (error instanceof VolantError) log.warn(fields, "a published port can't be listened on, and is tried again");
      else log.error({ ...fields, error }, "a published port can't be listened on, in a way that was not expected");
      this.#tell(port, reason);
    }
  }

  #tell(port: VmPort, message: string): void {
    const { store, events, now, log } = this.#options;
    try {
      const record = store.getVm(port.vmId);
      if (record !== undefined) events.publish(vmEvent("VM_UPDATED", record, { now: now(), message }));
    } catch (error) {
      // Ports must not depend on what is only said about them.
      log.error({ vm: port.vmId, error }, "an event about a published port can't be stored");
    }
  }

  #forgetFailures(desired: readonly VmPort[]): void {
    const owners = new Map(desired.map((port) => [portKey(port), port.vmId]));
    for (const [key, { port }] of this.#failures) if (owners.get(key) !== port.vmId) this.#failures.delete(key);
  }

  #wakeForRetry(): void {
    clearTimeout(this.#timer);
    if (this.#failures.size === 0 || this.#closed) return;
    const nextMs = Math.min(...[...this.#failures.values()].map(({ retryAtMs }) => retryAtMs));
    // A timer may fire a little before its time: one that comes too early would find nothing to do.
    const delayMs = Math.max(0, nextMs - this.#options.monotonicMs()) + 1;
    this.#timer = setTimeout(() => void this.sync(), delayMs);
    this.#timer.unref();
  }

  /** Lets go of every port and ends what came by them. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const held of this.#held.values()) held.listener.close();
    this.#held.clear();
    await this.#syncing;
  }
}
