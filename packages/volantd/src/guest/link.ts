/**
 * The host's end of the link to one guest's agent. It connects by itself, and again after every interruption, until it is closed. Wire format:
 * docs/agent-protocol.md.
 */
import { EventEmitter } from "node:events";
import { constants, type ClientHttp2Session, type ClientHttp2Stream, type OutgoingHttpHeaders } from "node:http2";
import { Readable, type Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { VolantError } from "@volant/contract";
import { writeBytesTogether } from "./bytes-together.ts";
import { DataLink, type DataTransport, type TransportState } from "./data-link.ts";
import { endWhole } from "./end-whole.ts";
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
/** What the pause is multiplied by; by more where nobody listens any more, since a hypervisor that has ended is told of soon. */
const RETRY_GROWTH = { answered: 2, alone: 4 } as const;
const DEFAULT_HEARTBEAT_MS = 5000;
/** Heartbeats that an agent gets for its line on the stream port: that of a guest which hardly gets any processor comes late, too. */
const STREAM_LINE_HEARTBEATS = 6;
/** With the pause between pings at most 1.85 s until a silence is told: within two seconds, and long for a guest under emulation on a busy host. */
const PING_EVERY_MS = 750;
const SILENT_AFTER_MS = 1100;
/** Bodies of answers that are read whole. */
const MAX_BODY_BYTES = 256 * 1024;
/** Of the 320 requests that the agent serves at once, what is left is for volantd's own. */
const MAX_OPEN_STREAMS = 288;
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
  /** A second way into the guest, for data; streams go over it while it can be used. */
  readonly data?: DataTransport | undefined;
  /** A guest that is silent for twice this time has lost its session, and one that does not begin it for six times. A silence is told long before. Default 5,000 ms. */
  readonly heartbeatMs?: number;
}

/** `connecting` to the hypervisor's sockets, `waiting` for the guest to call home, `attached`, `closed` for good. */
export type GuestLinkState = "connecting" | "waiting" | "attached" | "closed";

interface GuestLinkEvents {
  attached: [agent: AgentInfo];
  /** A session that was attached has ended. */
  detached: [reason: VolantError];
  /** An agent that is attached has not answered since then, on the clock of `performance.now()`. */
  silent: [sinceMs: number];
  /** It answers again. */
  answering: [];
  /** Data goes another way than before. */
  transport: [state: TransportState];
}

export interface GuestRequest {
  readonly method: string;
  /** Path and query, as `/v1/status`. */
  readonly path: string;
  readonly headers?: OutgoingHttpHeaders;
  readonly body?: string;
  /** The body is still to come: the answer's stream takes it. */
  readonly open?: true;
  /** The body, sent as it comes. It is not closed; when it breaks, so does the request. */
  readonly content?: Readable;
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
  readonly #data: DataLink;
  #state: GuestLinkState = "connecting";
  #http: ClientHttp2Session | undefined;
  #agent: AgentInfo | undefined;
  #lastError: VolantError | undefined;
  #open = 0;

  private constructor(options: GuestLinkOptions) {
    super();
    this.#options = options;
    this.#data = new DataLink({
      transport: options.data,
      heartbeatMs: options.heartbeatMs ?? DEFAULT_HEARTBEAT_MS,
      onChange: () => this.#tell("transport", this.#data.state),
    });
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

  /** How data reaches the guest. */
  get transport(): TransportState {
    return this.#data.state;
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
    return this.#request(this.#http, request);
  }

  #request(http: ClientHttp2Session | undefined, request: GuestRequest): Promise<GuestResponse> {
    if (http === undefined || http.destroyed || http.closed) return Promise.reject(this.#unreachable());
    if (request.signal?.aborted === true) return Promise.reject(request.signal.reason);
    const stream = http.request(
      { ...request.headers, ":method": request.method, ":path": request.path },
      {
        endStream: request.body === undefined && request.content === undefined && request.open !== true,
        ...(request.signal && { signal: request.signal }),
      },
    );
    writeBytesTogether(stream);
    return new Promise((resolve, reject) => {
      // Stays for the stream's whole life; after the answer, whoever reads the body sees the error as well.
      stream.on("error", (error: Error) => reject(this.#failure(error, request.signal)));
      const early = () => reject(this.#failure(undefined, request.signal));
      stream.once("close", early);
      stream.once("response", (headers) => {
        stream.off("close", early);
        resolve({ status: headers[":status"] ?? 0, stream });
      });
      if (request.body !== undefined) stream.end(request.body);
      if (request.content !== undefined) feed(request.content, stream);
    });
  }

  /**
   * Opens a stream of bytes both ways, by the way for data where there is one. Each direction ends by itself; an error or a reset is the end of both.
   *
   * @throws VolantError the agent's refusal, `guest_unreachable`, `exhausted` when too many are open
   */
  open(path: string, signal?: AbortSignal): Promise<Duplex> {
    return this.#stream({ method: "POST", path, signal, open: true });
  }

  /** A file as it comes; one that breaks off ends with an error. @throws as {@link open} */
  async download(path: string, signal?: AbortSignal): Promise<Readable> {
    const stream = await this.#stream({ method: "GET", path, signal });
    return Readable.from(this.#whole(stream, signal), { objectMode: false, highWaterMark: 64 * 1024 });
  }

  /** Sends a file as it comes, and gives what the guest said of it. `content` is not closed. @throws as {@link open} */
  async upload(path: string, contentType: string, content: Readable, signal?: AbortSignal): Promise<string> {
    const request = { method: "PUT", path, headers: { "content-type": contentType }, content, signal };
    this.#claim();
    try {
      return await this.#ask(request);
    } finally {
      this.#open -= 1;
    }
  }

  async #stream(request: GuestRequest): Promise<ClientHttp2Stream> {
    this.#claim();
    const { signal } = request;
    let stream: ClientHttp2Stream | undefined;
    try {
      // What serves data over a vsock device serves streams into the guest, and nothing else.
      const http = request.open === true ? (this.#data.http ?? this.#http) : this.#http;
      const answer = await this.#request(http, request);
      stream = answer.stream;
      if (answer.status === 200) {
        if (stream.destroyed) this.#open -= 1;
        else stream.once("close", () => (this.#open -= 1));
        // Two pipelines and an HTTP exchange on one stream listen more than ten times, each of them once.
        stream.setMaxListeners(32);
        if (request.open === true) endWhole(stream);
        return stream;
      }
      throw refusal(request, answer.status, await readWhole(stream));
    } catch (error) {
      this.#open -= 1;
      stream?.close(constants.NGHTTP2_CANCEL);
      throw error instanceof VolantError || signal?.aborted === true ? error : this.#unreachable(error);
    }
  }

  #claim(): void {
    if (this.#open >= MAX_OPEN_STREAMS) {
      throw new VolantError("exhausted", `this guest has ${MAX_OPEN_STREAMS} open streams already`);
    }
    this.#open += 1;
  }

  async *#whole(stream: ClientHttp2Stream, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
    try {
      yield* stream as AsyncIterable<Buffer>;
      // A session that is torn down ends its streams as well; that is not the file's end.
      if (stream.rstCode !== 0 || this.#http === undefined) throw this.#unreachable();
    } catch (error) {
      throw error instanceof VolantError ? error : this.#failure(error as Error, signal);
    } finally {
      stream.destroy();
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
      this.#data.end();
      if (wasAttached) {
        if (performance.now() - startedAt >= LASTING_SESSION_MS) pauseMs = FIRST_RETRY_MS;
        this.#tell("detached", this.#lastError);
      }
      if (signal.aborted) break;
      const growth = (this.#state as GuestLinkState) === "connecting" ? RETRY_GROWTH.alone : RETRY_GROWTH.answered;
      this.#state = "connecting";
      await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {});
      pauseMs = Math.min(pauseMs * growth, LAST_RETRY_MS);
    }
    this.#state = "closed";
  }

  #session(): Promise<never> {
    const { controlPath, streamPath, identity, generation, now, randomNonce, heartbeatMs } = this.#options;
    const nonce = randomNonce();
    const quiet = heartbeatMs ?? DEFAULT_HEARTBEAT_MS;
    return runSession(
      {
        controlPath,
        streamPath,
        identity,
        generation,
        now,
        nonce,
        liveness: {
          everyMs: Math.min(PING_EVERY_MS, quiet),
          silentAfterMs: Math.min(SILENT_AFTER_MS, quiet),
          endAfterMs: 2 * quiet,
        },
        streamLineMs: STREAM_LINE_HEARTBEATS * quiet,
        onSilent: (sinceMs) => this.#tell("silent", sinceMs),
        onAnswer: () => this.#tell("answering"),
        onWaiting: () => {
          this.#state = "waiting";
        },
        onAttached: (agent, http) => {
          this.#http = http;
          this.#agent = agent;
          this.#state = "attached";
          this.#tell("attached", agent);
          this.#data.begin(agent, nonce);
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

/** Not pipeline(): the content is a client's request, which has to outlive a refusal, so that the answer can still be sent over it. */
function feed(content: Readable, stream: ClientHttp2Stream): void {
  const breakOff = () => stream.close(constants.NGHTTP2_CANCEL);
  content.once("error", breakOff);
  content.pipe(stream);
  stream.once("close", () => {
    content.unpipe(stream);
    content.off("error", breakOff);
  });
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
    case 429:
    case 507:
      return new VolantError("exhausted", message);
    case 501:
      return new VolantError("not_supported", message);
    default:
      return new VolantError("guest_unreachable", code === undefined ? message : `${message} (${code})`);
  }
}
