/** What the engine knows of one guest while its hypervisor runs: the link to its agent, and what came over it. */
import type { Duplex, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { TransportState } from "../guest/data-link.ts";
import type { GuestConfig } from "../guest/guest-config.ts";
import type { GuestNetworkStatus, GuestStatus } from "../guest/guest-status.ts";
import type { AgentInfo, GuestIdentity } from "../guest/handshake.ts";
import type { GuestLinkState } from "../guest/link.ts";
import type { GuestLogEntry } from "../guest/log-entry.ts";
import type { ObservedGuest } from "../plan/observed.ts";

/** The port to the link; guest/link.ts is it. */
export interface GuestPort {
  /** `connecting`: this host can't even reach the hypervisor's sockets, of which the guest knows nothing. */
  readonly state: GuestLinkState;
  readonly agent: AgentInfo | undefined;
  /** How data reaches the guest. */
  readonly transport: TransportState;
  on(event: "transport", listener: () => void): unknown;
  on(event: "attached", listener: (agent: AgentInfo) => void): unknown;
  on(event: "detached", listener: (reason: Error) => void): unknown;
  /** The agent has not answered since then, on the monotonic clock; the link is still up. */
  on(event: "silent", listener: (sinceMs: number) => void): unknown;
  on(event: "answering", listener: () => void): unknown;
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
  /** A file as it comes. */
  download(path: string, signal?: AbortSignal): Promise<Readable>;
  /** Sends a file, which is not closed, and gives what the guest said of it. */
  upload(path: string, contentType: string, content: Readable, signal?: AbortSignal): Promise<string>;
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
  /** Called when {@link GuestSession.view}, {@link GuestSession.network} or {@link GuestSession.transport} would say something else than before. */
  readonly onChange: () => void;
  readonly onLog: (entry: GuestLogEntry) => void;
  readonly monotonicMs: () => number;
  /** An earlier session followed this guest: it is expected to answer. */
  readonly isKnown?: boolean;
  /** Whether an entry is the last one that an earlier session took; absent for a guest that no session has followed yet. */
  readonly isLastSeen?: ((entry: GuestLogEntry) => boolean) | undefined;
}

/** A stream that ended while the link is still up is opened again after this. */
const REOPEN_MS = 1000;
/** A volantd that has just been started has many guests to attach to: only from then on is one that does not answer silent. */
const KNOWN_GRACE_MS = 5000;

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
  readonly #monotonicMs: () => number;
  #silentSinceMs: number | undefined;

  constructor(options: GuestSessionOptions) {
    const { port, generation, onChange, onLog, isLastSeen, monotonicMs, isKnown = false } = options;
    this.#monotonicMs = monotonicMs;
    this.#silentSinceMs = isKnown ? monotonicMs() + KNOWN_GRACE_MS : undefined;
    this.#isLastSeen = isLastSeen;
    this.#port = port;
    this.generation = generation;
    this.#onChange = onChange;
    this.#onLog = onLog;
    port.on("attached", () => this.#attached());
    port.on("detached", () => this.#detached());
    port.on("transport", () => this.#onChange());
    port.on("silent", (sinceMs) => this.#setSilent(sinceMs));
    port.on("answering", () => this.#setSilent(undefined));
    if (port.agent !== undefined) this.#attached();
  }

  get agent(): AgentInfo | undefined {
    return this.#port.agent;
  }

  get transport(): TransportState {
    return this.#port.transport;
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
      silentSinceMs: this.#silentSinceMs,
    };
  }

  /** This host can't connect to its link: that says nothing about the guest. */
  get isOutOfReach(): boolean {
    return this.#port.state === "connecting";
  }

  #setSilent(sinceMs: number | undefined): void {
    if (sinceMs === undefined ? this.#silentSinceMs === undefined : this.#silentSinceMs !== undefined) return;
    this.#silentSinceMs = sinceMs;
    this.#onChange();
  }

  #attached(): void {
    this.#attachment?.abort();
    this.#attachment = new AbortController();
    this.#configured = false;
    this.#status = undefined;
    this.#silentSinceMs = undefined;
    this.#onChange();
  }

  #detached(): void {
    this.#attachment?.abort();
    this.#attachment = undefined;
    this.#configured = false;
    this.#silentSinceMs ??= this.#monotonicMs();
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

  /** @throws as {@link open} */
  download(path: string, signal?: AbortSignal): Promise<Readable> {
    return this.#port.download(path, signal);
  }

  /** @throws as {@link open} */
  upload(path: string, contentType: string, content: Readable, signal?: AbortSignal): Promise<string> {
    return this.#port.upload(path, contentType, content, signal);
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
