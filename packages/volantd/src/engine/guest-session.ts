/** What the engine knows of one guest while its hypervisor runs: the link to its agent, and what came over it. */
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { GuestConfig } from "../guest/guest-config.ts";
import type { GuestNetworkStatus, GuestStatus } from "../guest/guest-status.ts";
import type { AgentInfo, GuestIdentity } from "../guest/handshake.ts";
import type { GuestLogEntry } from "../guest/log-entry.ts";
import type { ObservedGuest } from "../plan/observed.ts";

/** The port to the link; guest/link.ts is it. */
export interface GuestPort {
  readonly agent: AgentInfo | undefined;
  on(event: "attached", listener: (agent: AgentInfo) => void): unknown;
  on(event: "detached", listener: (reason: Error) => void): unknown;
  configure(config: GuestConfig, signal?: AbortSignal): Promise<boolean>;
  watchStatus(signal?: AbortSignal): AsyncIterable<GuestStatus>;
  logs(options: {
    readonly after?: number;
    readonly follow?: boolean;
    readonly signal?: AbortSignal;
  }): AsyncIterable<GuestLogEntry>;
  shutdown(options: { readonly mode: "poweroff" | "reboot"; readonly timeoutMs?: number }): Promise<void>;
  checkHealth(signal?: AbortSignal): Promise<void>;
  /** A stream of bytes both ways; refusals are the agent's own. */
  open(path: string, signal?: AbortSignal): Promise<Duplex>;
  close(): Promise<void>;
}

export interface GuestPortOptions {
  readonly vmId: number;
  readonly generation: number;
  readonly identity: GuestIdentity;
}

export interface GuestSessionOptions {
  readonly port: GuestPort;
  readonly generation: number;
  /** Called when {@link GuestSession.view} or {@link GuestSession.network} would say something else than before. */
  readonly onChange: () => void;
  readonly onLog: (entry: GuestLogEntry) => void;
  /** Whether an entry is the last one that an earlier session took; absent for a guest that no session has followed yet. */
  readonly isLastSeen?: ((entry: GuestLogEntry) => boolean) | undefined;
}

/** A stream that ended while the link is still up is opened again after this. */
const REOPEN_MS = 1000;

function troubleOf(status: GuestStatus | undefined): string | undefined {
  if (status === undefined) return undefined;
  if (status.network.reason !== undefined) return `the guest's network: ${status.network.reason}`;
  const { workload, health } = status;
  if (workload.state === "failed") return `the workload can't be started: ${workload.reason}`;
  if (workload.state === "exited") {
    const how = workload.signal === undefined ? `code ${workload.code ?? "unknown"}` : `signal ${workload.signal}`;
    return `the workload ended with ${how}`;
  }
  return health.state === "unhealthy" ? `the workload is unhealthy: ${health.reason}` : undefined;
}

export class GuestSession {
  readonly generation: number;
  readonly #port: GuestPort;
  readonly #onChange: () => void;
  readonly #onLog: (entry: GuestLogEntry) => void;
  #isLastSeen: GuestSessionOptions["isLastSeen"];
  #attachment: AbortController | undefined;
  #configured = false;
  #status: GuestStatus | undefined;
  #lastLog = { bootId: "", seq: 0 };

  constructor({ port, generation, onChange, onLog, isLastSeen }: GuestSessionOptions) {
    this.#isLastSeen = isLastSeen;
    this.#port = port;
    this.generation = generation;
    this.#onChange = onChange;
    this.#onLog = onLog;
    port.on("attached", () => this.#attached());
    port.on("detached", () => this.#detached());
    if (port.agent !== undefined) this.#attached();
  }

  get agent(): AgentInfo | undefined {
    return this.#port.agent;
  }

  /** What the guest says of its network, unjudged; undefined before it has said anything. */
  get network(): GuestNetworkStatus | undefined {
    return this.#status?.network;
  }

  view(): ObservedGuest {
    return {
      generation: this.generation,
      attached: this.#attachment !== undefined,
      configured: this.#configured,
      workload: this.#status?.workload.state,
      health: this.#status?.health.state,
      trouble: troubleOf(this.#status),
    };
  }

  #attached(): void {
    this.#attachment?.abort();
    this.#attachment = new AbortController();
    this.#configured = false;
    this.#status = undefined;
    this.#onChange();
  }

  #detached(): void {
    this.#attachment?.abort();
    this.#attachment = undefined;
    this.#configured = false;
    this.#onChange();
  }

  /** Tells the guest what it is for, and begins to follow its state and its log. */
  async configure(config: GuestConfig): Promise<void> {
    const attachment = this.#attachment;
    if (attachment === undefined) return;
    await this.#port.configure(config, attachment.signal);
    if (attachment.signal.aborted || this.#configured) return;
    this.#configured = true;
    void this.#follow(attachment.signal, () => this.#followStatus(attachment.signal));
    void this.#follow(attachment.signal, () => this.#followLogs(attachment.signal));
    this.#onChange();
  }

  /** A stream into the guest. @throws VolantError `guest_unreachable`, or the agent's refusal */
  open(path: string, signal?: AbortSignal): Promise<Duplex> {
    return this.#port.open(path, signal);
  }

  /** Resolves when the agent answers that it is well. @throws VolantError `guest_unreachable` */
  checkHealth(signal?: AbortSignal): Promise<void> {
    return this.#port.checkHealth(signal);
  }

  async shutdown(timeoutMs: number): Promise<void> {
    await this.#port.shutdown({ mode: "poweroff", timeoutMs });
  }

  /** Lets go of the link; the guest goes on. */
  async close(): Promise<void> {
    this.#attachment?.abort();
    this.#attachment = undefined;
    await this.#port.close();
  }

  async #follow(signal: AbortSignal, once: () => Promise<void>): Promise<void> {
    while (!signal.aborted) {
      try {
        await once();
      } catch {
        // The link says itself when it is broken; it is attached again before anything is missed.
      }
      await sleep(REOPEN_MS, undefined, { signal, ref: false }).catch(() => {});
    }
  }

  async #followStatus(signal: AbortSignal): Promise<void> {
    for await (const status of this.#port.watchStatus(signal)) {
      if (signal.aborted) return;
      const before = this.#shown();
      this.#status = status;
      if (this.#shown() !== before) this.#onChange();
    }
  }

  #shown(): string {
    return JSON.stringify([this.view(), this.network]);
  }

  async #followLogs(signal: AbortSignal): Promise<void> {
    const bootId = this.#port.agent?.bootId ?? "";
    if (this.#lastLog.bootId !== bootId) this.#lastLog = { bootId, seq: 0 };
    const isLastSeen = this.#isLastSeen;
    if (isLastSeen !== undefined) {
      for await (const entry of this.#port.logs({ signal })) {
        if (entry.kind === "line" && isLastSeen(entry)) this.#lastLog.seq = entry.seq;
      }
      this.#isLastSeen = undefined;
    }
    for await (const entry of this.#port.logs({ after: this.#lastLog.seq, follow: true, signal })) {
      if (signal.aborted) return;
      this.#lastLog.seq = entry.kind === "gap" ? entry.to : entry.seq;
      this.#onLog(entry);
    }
  }
}
