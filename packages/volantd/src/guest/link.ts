/**
 * The host's end of the link to one guest's agent. It connects by itself, and again after every interruption, until it is closed. Wire format:
 * docs/agent-protocol.md.
 */
import { EventEmitter } from "node:events";
import { constants, type ClientHttp2Session, type ClientHttp2Stream, type OutgoingHttpHeaders } from "node:http2";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { VolantError } from "@volant/contract";
import { encodeGuestConfig, type GuestConfig } from "./guest-config.ts";
import { parseGuestStatus, type GuestStatus } from "./guest-status.ts";
import type { AgentInfo, GuestIdentity } from "./handshake.ts";
import { LineReader } from "./line-reader.ts";
import { parseLogEntry, type GuestLogEntry } from "./log-entry.ts";
import { runSession } from "./session.ts";
import { asMessage, asText, parseObject } from "./untrusted.ts";

/** Pause before connecting again: the first after a session that lasted, then doubling, so that a guest can't make us spin. */
const FIRST_RETRY_MS = 10;
const LAST_RETRY_MS = 1000;
const LASTING_SESSION_MS = 1000;
const DEFAULT_HEARTBEAT_MS = 5000;
/** Bodies of answers that are read whole. */
const MAX_BODY_BYTES = 256 * 1024;
/** Of the 128 requests that the agent serves at once, what is left is for volantd's own. */
const MAX_OPEN_STREAMS = 96;
/** Lines of streams: a log line's 8 KiB can take six bytes for each in JSON. */
const MAX_LINE_BYTES = 128 * 1024;

export interface GuestLinkOptions {
  /** Unix sockets of the two virtio-serial ports. */
  readonly controlPath: string;
  readonly streamPath: string;
  readonly identity: GuestIdentity;
  /** Grows with every restore. */
  readonly generation: number;
  readonly now: () => Date;
  /** 32 lower-case hexadecimal digits, never the same twice. */
  readonly randomNonce: () => string;
  /** How soon a silent guest is noticed: within twice this time. Default 5,000 ms. */
  readonly heartbeatMs?: number;
}

/** `connecting` to the hypervisor's sockets, `waiting` for the guest to call home, `attached`, `closed` for good. */
export type GuestLinkState = "connecting" | "waiting" | "attached" | "closed";

interface GuestLinkEvents {
  attached: [agent: AgentInfo];
  /** A session that was attached has ended. */
  detached: [reason: VolantError];
}

export interface GuestRequest {
  readonly method: string;
  /** Path and query, as `/v1/status`. */
  readonly path: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
  /** The body is still to come: the answer's stream takes it. */
  readonly open?: true;
  readonly signal?: AbortSignal | undefined;
}

/** An answer whose body is still to come; destroy `stream` when it is not wanted any more. */
export interface GuestResponse {
  readonly status: number;
  readonly stream: ClientHttp2Stream;
}

export interface GuestLogsOptions {
  /** Only lines after this number; 0 or absent means all that the guest still has. */
  readonly after?: number;
  /** Go on with new lines until aborted. */
  readonly follow?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export class GuestLink extends EventEmitter<GuestLinkEvents> {
  readonly #options: GuestLinkOptions;
  readonly #closing = new AbortController();
  readonly #done: Promise<void>;
  #state: GuestLinkState = "connecting";
  #http: ClientHttp2Session | undefined;
  #agent: AgentInfo | undefined;
  #lastError: VolantError | undefined;
  #open = 0;

  private constructor(options: GuestLinkOptions) {
    super();
    this.#options = options;
    this.#done = this.#run();
  }

  /** Opens a link and keeps it open until `close`. The sockets need not exist yet. */
  static open(options: GuestLinkOptions): GuestLink {
    return new GuestLink(options);
  }

  get state(): GuestLinkState {
    return this.#state;
  }

  /** The agent of the present session; undefined unless attached. */
  get agent(): AgentInfo | undefined {
    return this.#agent;
  }

  /** Why the last session ended or did not begin: what to tell a user whose guest does not call home. */
  get lastError(): VolantError | undefined {
    return this.#lastError;
  }

  /** Resolves as soon as the link is attached. Rejects when it is closed or `signal` aborts first. */
  async attached(signal?: AbortSignal): Promise<AgentInfo> {
    if (this.#agent !== undefined) return this.#agent;
    const { promise, resolve, reject } = Promise.withResolvers<AgentInfo>();
    const stop = AbortSignal.any([this.#closing.signal, ...(signal === undefined ? [] : [signal])]);
    const onStop = () => reject(signal?.aborted === true ? signal.reason : closedError());
    if (stop.aborted) onStop();
    stop.addEventListener("abort", onStop, { once: true });
    this.once("attached", resolve);
    try {
      return await promise;
    } finally {
      stop.removeEventListener("abort", onStop);
      this.off("attached", resolve);
    }
  }

  /**
   * Gives the guest its configuration. Resolves when the guest has applied it and started the workload (healthy is another matter).
   *
   * @returns false when the guest had this version already, and nothing was done
   * @throws VolantError `invalid` when the guest refuses it, `guest_unreachable`
   */
  async configure(config: GuestConfig, signal?: AbortSignal): Promise<boolean> {
    const body = encodeGuestConfig(config);
    const answer = parseObject(await this.#ask({ method: "PUT", path: "/v1/config", body, signal }));
    return answer?.["changed"] === true;
  }

  async status(signal?: AbortSignal): Promise<GuestStatus> {
    const status = parseGuestStatus(await this.#ask({ method: "GET", path: "/v1/status", signal }));
    if (status === undefined)
      throw new VolantError("guest_unreachable", "the guest's agent sent a status that is none");
    return status;
  }

  /** The status now, after each change, and at least every few seconds. Ends by abort; throws `guest_unreachable` when the link breaks. */
  watchStatus(signal?: AbortSignal): AsyncIterable<GuestStatus> {
    return this.#lines({ method: "GET", path: "/v1/status?watch", signal }, parseGuestStatus);
  }

  /** The workload's log. Ends by abort, or at the present without `follow`; throws `guest_unreachable` when the link breaks. */
  logs(options: GuestLogsOptions = {}): AsyncIterable<GuestLogEntry> {
    const path = `/v1/logs?after=${options.after ?? 0}${options.follow === true ? "&follow" : ""}`;
    return this.#lines({ method: "GET", path, signal: options.signal }, parseLogEntry);
  }

  /** Asks the guest to end in good order: the workload gets `timeoutMs` to stop. Resolves when the guest has begun. */
  async shutdown(options: { readonly mode: "poweroff" | "reboot"; readonly timeoutMs?: number }): Promise<void> {
    const body = JSON.stringify({ mode: options.mode, timeout_ms: options.timeoutMs });
    await this.#ask({ method: "POST", path: "/v1/shutdown", body });
  }

  /** Opens one request. The answer's headers are there when it resolves; its body is the caller's to bound. */
  request(request: GuestRequest): Promise<GuestResponse> {
    const http = this.#http;
    if (http === undefined || http.destroyed || http.closed) return Promise.reject(this.#unreachable());
    if (request.signal?.aborted === true) return Promise.reject(request.signal.reason);
    const stream = http.request(
      { ...request.headers, ":method": request.method, ":path": request.path },
      {
        endStream: request.body === undefined && request.open !== true,
        ...(request.signal && { signal: request.signal }),
      },
    );
    return new Promise((resolve, reject) => {
      // Stays for the stream's whole life; after the answer, whoever reads the body sees the error as well.
      stream.on("error", (error: Error) => reject(this.#failure(error, request.signal)));
      stream.once("close", () => reject(this.#failure(undefined, request.signal)));
      stream.once("response", (headers) => resolve({ status: headers[":status"] ?? 0, stream }));
      if (request.body !== undefined) stream.end(request.body);
    });
  }

  /**
   * Opens a stream of bytes both ways. Each direction ends by itself; an error or a reset is the end of both.
   *
   * @throws VolantError the agent's refusal, `guest_unreachable`, `exhausted` when too many are open
   */
  async open(path: string, signal?: AbortSignal): Promise<Duplex> {
    if (this.#open >= MAX_OPEN_STREAMS) {
      throw new VolantError("exhausted", `this guest has ${MAX_OPEN_STREAMS} open streams already`);
    }
    this.#open += 1;
    let stream: ClientHttp2Stream | undefined;
    try {
      const answer = await this.request({ method: "POST", path, signal, open: true });
      stream = answer.stream;
      if (answer.status === 200) {
        stream.once("close", () => (this.#open -= 1));
        // Two pipelines and an HTTP exchange on one stream listen more than ten times, each of them once.
        stream.setMaxListeners(32);
        return stream;
      }
      throw refusal({ method: "POST", path }, answer.status, await readWhole(stream));
    } catch (error) {
      this.#open -= 1;
      stream?.close(constants.NGHTTP2_CANCEL);
      throw error instanceof VolantError || signal?.aborted === true ? error : this.#unreachable(error);
    }
  }

  /** Resolves when the agent says that it is well. */
  async checkHealth(signal?: AbortSignal): Promise<void> {
    await this.#ask({ method: "GET", path: "/v1/healthz", signal });
  }

  /** Ends the link for good. The guest goes on. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#done;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    let pauseMs = FIRST_RETRY_MS;
    while (!signal.aborted) {
      this.#state = "connecting";
      const startedAt = performance.now();
      const reason = await this.#session().catch((error: unknown) => error);
      const wasAttached = this.#agent !== undefined;
      this.#lastError = reason instanceof VolantError ? reason : this.#unreachable(reason);
      this.#http = undefined;
      this.#agent = undefined;
      if (wasAttached) {
        if (performance.now() - startedAt >= LASTING_SESSION_MS) pauseMs = FIRST_RETRY_MS;
        this.#tell("detached", this.#lastError);
      }
      if (signal.aborted) break;
      this.#state = "connecting";
      await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {});
      pauseMs = Math.min(pauseMs * 2, LAST_RETRY_MS);
    }
    this.#state = "closed";
  }

  #session(): Promise<never> {
    const { controlPath, streamPath, identity, generation, now, randomNonce, heartbeatMs } = this.#options;
    return runSession(
      {
        controlPath,
        streamPath,
        identity,
        generation,
        now,
        nonce: randomNonce(),
        heartbeatMs: heartbeatMs ?? DEFAULT_HEARTBEAT_MS,
        onWaiting: () => {
          this.#state = "waiting";
        },
        onAttached: (agent, http) => {
          this.#http = http;
          this.#agent = agent;
          this.#state = "attached";
          this.#tell("attached", agent);
        },
      },
      this.#closing.signal,
    );
  }

  /** Listeners run apart from the link: one that throws is a bug of its own, not the link's end. */
  #tell<K extends keyof GuestLinkEvents>(event: K, ...args: GuestLinkEvents[K]): void {
    queueMicrotask(() => (this.emit as (name: string, ...values: unknown[]) => boolean).call(this, event, ...args));
  }

  #unreachable(cause?: unknown): VolantError {
    if (this.#closing.signal.aborted) return closedError();
    return new VolantError("guest_unreachable", "the guest's agent is not connected", { cause });
  }

  #failure(error: Error | undefined, signal: AbortSignal | undefined): unknown {
    return signal?.aborted === true ? signal.reason : this.#unreachable(error);
  }

  /** A request whose answer is read whole. */
  async #ask(request: GuestRequest): Promise<string> {
    const { status, stream } = await this.request(request);
    let text: string;
    try {
      text = await readWhole(stream);
    } catch (error) {
      throw error instanceof VolantError ? error : this.#failure(error as Error, request.signal);
    } finally {
      stream.destroy();
    }
    if (status >= 200 && status < 300) return text;
    throw refusal(request, status, text);
  }

  /** A request whose answer is a line of JSON after another. Lines that are not what they should be are left out. */
  async *#lines<T>(request: GuestRequest, parse: (line: string) => T | undefined): AsyncGenerator<T, void, undefined> {
    const { status, stream } = await this.request(request);
    try {
      if (status !== 200) throw refusal(request, status, "");
      const reader = new LineReader(MAX_LINE_BYTES);
      for await (const part of stream as AsyncIterable<Buffer>) {
        for (const line of reader.feed(part)) {
          const value = parse(line);
          if (value !== undefined) yield value;
        }
      }
      // A session that is torn down ends its streams as well; that is not the answer's end.
      if (stream.rstCode !== 0 || this.#http === undefined) throw this.#unreachable();
    } catch (error) {
      if (request.signal?.aborted === true) return;
      throw error instanceof VolantError ? error : this.#unreachable(error);
    } finally {
      stream.destroy();
    }
  }
}

/** @throws VolantError `guest_unreachable` when it does not end in time */
async function readWhole(stream: ClientHttp2Stream): Promise<string> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of stream as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > MAX_BODY_BYTES) throw new VolantError("guest_unreachable", "the guest's agent sent an endless answer");
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function closedError(): VolantError {
  return new VolantError("guest_unreachable", "the link to the guest was closed");
}

/** The agent's own words where it gave any. */
function refusal(request: GuestRequest, status: number, text: string): VolantError {
  const body = parseObject(text);
  const message =
    asMessage(body?.["error"], 1024) ?? `the guest's agent answered ${request.method} ${request.path} with ${status}`;
  const code = asText(body?.["code"], 64);
  switch (status) {
    case 400:
      return new VolantError("invalid", message);
    case 404:
      return new VolantError("not_found", message);
    case 409:
      return new VolantError("wrong_state", message);
    case 413:
      return new VolantError("too_large", message);
    case 501:
      return new VolantError("not_supported", message);
    default:
      return new VolantError("guest_unreachable", code === undefined ? message : `${message} (${code})`);
  }
}
