/** What the engine knows of one guest while its hypervisor runs: the link to its agent, and what came over it. */
import type { Duplex, Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { TransportState } from "../guest/data-link.ts";
import type { GuestConfig } from "../guest/guest-config.ts";
import type { GuestNetworkStatus, GuestStatus } from "../guest/guest-status.ts";
import type { AgentInfo, GuestIdentity } from "../guest/control-lines.ts";
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
  /** What the guest said of itself last. */
  readonly lastStatus: GuestStatus | undefined;
  on(event: "status", listener: (status: GuestStatus) => void): unknown;
  on(event: "transport", listener: () => void): unknown;
  on(event: "attached", listener: (agent: AgentInfo) => void): unknown;
  on(event: "detached", listener: (reason: Error) => void): unknown;
  /** The agent says why it can't serve this host. */
  on(event: "refused", listener: (sentence: string) => void): unknown;
  /** The agent has not answered since then, on the monotonic clock; the link is still up. */
  on(event: "silent", listener: (sinceMs: number) => void): unknown;
  on(event: "answering", listener: () => void): unknown;
  configure(config: GuestConfig): Promise<boolean>;
  /** All that the guest still has of its workload's log. */
  logs(): AsyncIterable<GuestLogEntry>;
  /** What the workload has printed after this number, or prints next. */
  readLogs(after: number, wait: boolean): Promise<readonly GuestLogEntry[]>;
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

/** A log that can't be read while the link is up is asked for again after this. */
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

/** What a session knows of its guest. */
interface Known {
  /** Another object each time; undefined while there is none. */
  readonly attachment: object | undefined;
  readonly configured: boolean;
  readonly status: GuestStatus | undefined;
  readonly silentSinceMs: number | undefined;
  /** Why the agent can't serve this host, in its words; until it is attached. */
  readonly refusal?: string | undefined;
}

export class GuestSession {
  readonly generation: number;
  readonly #port: GuestPort;
  readonly #onChange: () => void;
  readonly #onLog: (entry: GuestLogEntry) => void;
  #isLastSeen: GuestSessionOptions["isLastSeen"];
  #known: Known;
  /** What {@link GuestSession.view} says of what is known; made when somebody asks. */
  #view: ObservedGuest | undefined;
  /** What of the status is news when it changes, as text. */
  #shown: string | undefined;
  #lastLog = { bootId: "", seq: 0 };
  readonly #monotonicMs: () => number;

  constructor(options: GuestSessionOptions) {
    const { port, generation, onChange, onLog, isLastSeen, monotonicMs, isKnown = false } = options;
    this.#monotonicMs = monotonicMs;
    const silentSinceMs = isKnown ? monotonicMs() + KNOWN_GRACE_MS : undefined;
    this.#known = { attachment: undefined, configured: false, status: undefined, silentSinceMs };
    this.#isLastSeen = isLastSeen;
    this.#port = port;
    this.generation = generation;
    this.#onChange = onChange;
    this.#onLog = onLog;
    port.on("attached", () => this.#attached());
    port.on("detached", () => this.#detached());
    port.on("refused", (refusal) => this.#setRefusal(refusal));
    port.on("status", (status) => this.#hear(status));
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
    return this.#known.status?.network;
  }

  /** The same object until something of it changes. */
  view(): ObservedGuest {
    const { attachment, configured, status, silentSinceMs, refusal } = this.#known;
    this.#view ??= {
      generation: this.generation,
      attached: attachment !== undefined,
      configured,
      workload: status?.workload.state,
      health: status?.health.state,
      trouble: troubleOf(status),
      silentSinceMs,
      refusal,
    };
    return this.#view;
  }

  /** The only way to change what is known, so that no view outlives it. */
  #learn(news: Partial<Known>): void {
    this.#known = { ...this.#known, ...news };
    this.#view = undefined;
  }

  /** This host can't connect to its link: that says nothing about the guest. */
  get isOutOfReach(): boolean {
    return this.#port.state === "connecting";
  }

  #setSilent(sinceMs: number | undefined): void {
    if ((sinceMs === undefined) === (this.#known.silentSinceMs === undefined)) return;
    this.#learn({ silentSinceMs: sinceMs });
    this.#onChange();
  }

  #setRefusal(refusal: string): void {
    if (refusal === this.#known.refusal) return;
    this.#learn({ refusal });
    this.#onChange();
  }

  #attached(): void {
    this.#shown = undefined;
    this.#learn({
      attachment: {},
      configured: false,
      status: undefined,
      silentSinceMs: undefined,
      refusal: undefined,
    });
    this.#onChange();
  }

  #detached(): void {
    const silentSinceMs = this.#known.silentSinceMs ?? this.#monotonicMs();
    this.#learn({ attachment: undefined, configured: false, silentSinceMs });
    this.#onChange();
  }

  /** Tells the guest what it is for, and begins to follow its state and its log. */
  async configure(config: GuestConfig): Promise<void> {
    const { attachment } = this.#known;
    if (attachment === undefined) return;
    await this.#port.configure(config);
    if (this.#known.attachment !== attachment || this.#known.configured) return;
    this.#learn({ configured: true });
    if (this.#port.lastStatus !== undefined) this.#hear(this.#port.lastStatus);
    void this.#followLogs(attachment);
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
    this.#learn({ attachment: undefined });
    await this.#port.close();
  }

  /** Of no interest before the guest is configured: then it is asked what it said last. */
  #hear(status: GuestStatus): void {
    if (this.#known.attachment === undefined || !this.#known.configured) return;
    const { network, workload, health } = status;
    // Guests tell it every few seconds, mostly without news. What is kept then is as good.
    const shown = JSON.stringify([network, workload.state, health.state, troubleOf(status)]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#learn({ status });
    this.#onChange();
  }

  /** Goes on for as long as the guest stays attached. */
  async #followLogs(attachment: object): Promise<void> {
    while (this.#known.attachment === attachment) {
      try {
        await this.#skipSeenLogs();
        for (;;) {
          const entries = await this.#port.readLogs(this.#lastLog.seq, true);
          if (this.#known.attachment !== attachment) return;
          for (const entry of entries) {
            this.#lastLog.seq = entry.kind === "gap" ? entry.to : entry.seq;
            this.#onLog(entry);
          }
        }
      } catch {
        // The link says itself when it is broken; it is attached again before anything is missed.
      }
      await sleep(REOPEN_MS, undefined, { ref: false });
    }
  }

  async #skipSeenLogs(): Promise<void> {
    const bootId = this.#port.agent?.bootId ?? "";
    if (this.#lastLog.bootId !== bootId) this.#lastLog = { bootId, seq: 0 };
    const isLastSeen = this.#isLastSeen;
    if (isLastSeen === undefined) return;
    for await (const entry of this.#port.logs()) {
      if (entry.kind === "line" && isLastSeen(entry)) this.#lastLog.seq = entry.seq;
    }
    this.#isLastSeen = undefined;
  }
}
