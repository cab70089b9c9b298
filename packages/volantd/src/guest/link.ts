/**
 * The host's end of the link to one guest's agent. It connects by itself, and again after every interruption, until it is closed. Wire format:
 * docs/agent-protocol.md.
 */
import { EventEmitter } from "node:events";
import { constants, type ClientHttp2Stream, type OutgoingHttpHeaders } from "node:http2";
import { Readable, type Duplex } from "node:stream";
import { VolantError } from "@volant/contract";
import { writeBytesTogether } from "./bytes-together.ts";
import { DataLink, type DataTransport, type TransportState } from "./data-link.ts";
import { endWhole } from "./end-whole.ts";
import { encodeGuestConfig, type GuestConfig } from "./guest-config.ts";
import { readGuestStatus, type GuestStatus } from "./guest-status.ts";
import type { AgentInfo, GuestIdentity } from "./control-lines.ts";
import { readLogEntry, type GuestLogEntry } from "./log-entry.ts";
import { Pulse } from "./pulse.ts";
import { fitsLine, type Question, type Questions } from "./questions.ts";
import { Session } from "./session.ts";
import { StreamPort } from "./stream-port.ts";
import { asMessage, asText, type JsonObject, parseObject } from "./untrusted.ts";

/** Pause before connecting again: the first after a session that lasted, then doubling, so that a guest can't make us spin. */
const FIRST_RETRY_MS = 10;
const LAST_RETRY_MS = 1000;
const LASTING_SESSION_MS = 1000;
/** What the pause is multiplied by; by more where nobody listens any more, since a hypervisor that has ended is told of soon. */
const RETRY_GROWTH = { answered: 2, alone: 4 } as const;
const DEFAULT_HEARTBEAT_MS = 5000;
/** Of these an agent gets so many for its line on the stream port: that of a guest which hardly gets any processor comes late, too. */
const STREAM_LINE_HEARTBEATS = 6;
/** With the pause between turns of the pulse at most 1.85 s until a silence is told: within two seconds, and two beats may be late under emulation on a busy host. */
const BEAT_MS = 750;
/** An agent refuses to beat more often (docs/agent-protocol.md). */
const LEAST_BEAT_MS = 100;
const SILENT_AFTER_MS = 1750;
/** A connection of HTTP/2 costs 50 KiB and more, beginning one a millisecond or two. */
const STREAM_IDLE_MS = 30_000;
/** What an agent keeps of a log, and what it reckons for a line besides its text. */
const KEPT_LOG_BYTES = 256 * 1024;
const LOG_LINE_BYTES = 64;
/** Bodies of answers that are read whole. */
const MAX_BODY_BYTES = 256 * 1024;
const VIRTIO_SERIAL: TransportState = { name: "virtio-serial" };
/** Of the 320 requests that the agent serves at once, what is left is for volantd's own. */
const MAX_OPEN_STREAMS = 288;

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
  /** A guest that is silent for twice this time has lost its session. A silence is told long before. Default 5,000 ms. */
  readonly heartbeatMs?: number;
  /** How long a connection for streams stays when there is none. Default 30,000 ms. */
  readonly streamIdleMs?: number;
  /** What all links look after their guests by. Default: one of its own. */
  readonly pulse?: Pulse;
}

/** `connecting` to the hypervisor's sockets, `waiting` for the guest to call home, `attached`, `closed` for good. */
export type GuestLinkState = "connecting" | "waiting" | "attached" | "closed";

interface GuestLinkEvents {
  attached: [agent: AgentInfo];
  /** A session that was attached has ended. */
  detached: [reason: VolantError];
  /** The agent is there and can't serve this host, and says why; it is asked again and again. */
  refused: [sentence: string];
  /** An agent that is attached has not answered since then, on the clock of `performance.now()`. */
  silent: [sinceMs: number];
  /** It answers again. */
  answering: [];
  /** What the guest says of itself, when it is attached and after each change. */
  status: [status: GuestStatus];
  /** Data goes another way than before. */
  transport: [state: TransportState];
  /** The link was closed for good. */
  closed: [];
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
  /** Absent where the guest has no second way in. */
  readonly #data: DataLink | undefined;
  #state: GuestLinkState = "connecting";
  readonly #pulse: Pulse;
  /** Before the next session is begun. */
  #pauseMs = FIRST_RETRY_MS;
  #retry: NodeJS.Timeout | undefined;
  /** The present one, or the last. */
  #session: Session | undefined;
  #begunMs = 0;
  /** Of the present session, as is what follows. */
  #questions: Questions | undefined;
  #streams: StreamPort | undefined;
  #agent: AgentInfo | undefined;
  #status: GuestStatus | undefined;
  /** The status is about to be told. */
  #isTelling = false;
  #lastError: VolantError | undefined;
  #open = 0;

  private constructor(options: GuestLinkOptions) {
    super();
    this.#options = options;
    this.#pulse = options.pulse ?? new Pulse();
    const { data, heartbeatMs = DEFAULT_HEARTBEAT_MS } = options;
    this.#data =
      data && new DataLink({ transport: data, heartbeatMs, onChange: () => this.#tell("transport", this.transport) });
    this.#begin();
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

  /** What the guest said of itself last, in the present session. */
  get lastStatus(): GuestStatus | undefined {
    return this.#status;
  }

  /** How data reaches the guest. */
  get transport(): TransportState {
    return this.#data?.state ?? VIRTIO_SERIAL;
  }

  /** Why the last session ended or did not begin: what to tell a user whose guest does not call home. */
  get lastError(): VolantError | undefined {
    return this.#lastError;
  }

  /** Resolves as soon as the link is attached. Rejects when it is closed or `signal` aborts first. */
  async attached(signal?: AbortSignal): Promise<AgentInfo> {
    if (this.#agent !== undefined) return this.#agent;
    signal?.throwIfAborted();
    if (this.#state === "closed") throw closedError();
    const { promise, resolve, reject } = Promise.withResolvers<AgentInfo>();
    const onAbort = (): void => reject(signal?.reason as Error);
    const onClosed = (): void => reject(closedError());
    signal?.addEventListener("abort", onAbort, { once: true });
    this.once("attached", resolve);
    this.once("closed", onClosed);
    try {
      return await promise;
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.off("attached", resolve);
      this.off("closed", onClosed);
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
    const question = { method: "PUT", path: "/v1/config", body, signal };
    const answer = fitsLine(body) ? await this.#ask(question) : parseObject(await this.#exchange(question));
    return answer?.["changed"] === true;
  }

  async status(signal?: AbortSignal): Promise<GuestStatus> {
    const status = readGuestStatus(await this.#ask({ method: "GET", path: "/v1/status", signal }));
    if (status === undefined)
      throw new VolantError("guest_unreachable", "the guest's agent sent a status that is none");
    return status;
  }

  /**
   * What the workload has printed after an entry's number, and the numbers of what the guest does not have any more; all that it has after 0.
   *
   * @param wait answered once there is something
   * @throws VolantError `guest_unreachable` when the link breaks; the signal's reason
   */
  readLogs(after: number, wait: boolean, signal?: AbortSignal): Promise<readonly GuestLogEntry[]> {
    const path = `/v1/logs?after=${after}${wait ? "&wait" : ""}`;
    return this.#ask({ method: "GET", path, signal }).then(({ entries: sent }) => {
      const entries = Array.isArray(sent) ? sent.map(readLogEntry) : [];
      // What is not what it should be is left out.
      const good = entries.filter((entry) => entry !== undefined);
      // Who has nothing to say waits: asked again at once, such an agent would keep this process busy.
      if (good.length === 0 && (wait || entries.length > 0)) throw this.#unreachable();
      return good;
    });
  }

  /** The workload's log. Ends by abort, or at the present without `follow`; throws `guest_unreachable` when the link breaks. */
  async *logs(options: GuestLogsOptions = {}): AsyncGenerator<GuestLogEntry, void, undefined> {
    const { follow = false, signal } = options;
    let after = options.after ?? 0;
    let read = 0;
    try {
      // Who has read as much as an agent keeps has read all that there was when he began, however much comes meanwhile.
      while (follow || read < KEPT_LOG_BYTES) {
        const entries = await this.readLogs(after, follow, signal);
        if (entries.length === 0) return;
        for (const entry of entries) {
          after = entry.kind === "gap" ? entry.to : entry.seq;
          if (entry.kind === "line") read += entry.line.length + LOG_LINE_BYTES;
          yield entry;
        }
      }
    } catch (error) {
      if (signal?.aborted === true) return;
      throw error;
    }
  }

  /** Asks the guest to end in good order: the workload gets `timeoutMs` to stop. Resolves when the guest has begun. */
  async shutdown(options: { readonly mode: "poweroff" | "reboot"; readonly timeoutMs?: number }): Promise<void> {
    const body = JSON.stringify({ mode: options.mode, timeout_ms: options.timeoutMs });
    await this.#ask({ method: "POST", path: "/v1/shutdown", body });
  }

  /** Opens one request over HTTP/2. The answer's headers are there when it resolves; its body is the caller's to bound. */
  async request(request: GuestRequest): Promise<GuestResponse> {
    const questions = this.#questions;
    if (questions === undefined) throw this.#unreachable();
    // Made when it is needed: most guests never need it.
    const streams = (this.#streams ??= this.#streamPort(questions));
    const { signal, path, method, headers } = request;
    signal?.throwIfAborted();
    const options = {
      endStream: request.body === undefined && request.content === undefined && request.open !== true,
      ...(signal && { signal }),
    };
    const head = { ...headers, ":method": method, ":path": path };
    // What serves data over a vsock device serves streams into the guest, and nothing else.
    const data = request.open === true ? this.#data?.http : undefined;
    let stream: ClientHttp2Stream;
    try {
      stream = data === undefined ? await streams.request(head, options) : data.request(head, options);
    } catch (error) {
      throw this.#failure(error, signal);
    }
    return this.#begun(stream, request);
  }

  #begun(stream: ClientHttp2Stream, request: GuestRequest): Promise<GuestResponse> {
    writeBytesTogether(stream);
    return new Promise((resolve, reject) => {
      // Stays for the stream's whole life; after the answer, whoever reads the body sees the error as well.
      stream.on("error", (error: Error) => reject(this.#failure(error, request.signal)));
      const early = () => reject(this.#failure(undefined, request.signal));
      if (stream.destroyed) return early();
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
      return await this.#exchange(request);
    } finally {
      this.#open -= 1;
    }
  }

  async #stream(request: GuestRequest): Promise<ClientHttp2Stream> {
    this.#claim();
    const { signal } = request;
    let stream: ClientHttp2Stream | undefined;
    try {
      const answer = await this.request(request);
      stream = answer.stream;
      if (answer.status === 200) {
        if (stream.destroyed) this.#open -= 1;
        else stream.once("close", () => (this.#open -= 1));
        // Two pipelines and an HTTP exchange on one stream listen more than ten times, each of them once.
        stream.setMaxListeners(32);
        if (request.open === true) endWhole(stream);
        return stream;
      }
      throw refusal(request, answer.status, parseObject(await readWhole(stream)));
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
      if (stream.rstCode !== 0 || this.#agent === undefined) throw this.#unreachable();
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
    if (this.#state === "closed") return;
    this.#state = "closed";
    clearTimeout(this.#retry);
    this.#session?.close();
    this.#tell("closed");
  }

  #begin(): void {
    const { controlPath, identity, generation, now, randomNonce, heartbeatMs } = this.#options;
    const nonce = randomNonce();
    const quiet = heartbeatMs ?? DEFAULT_HEARTBEAT_MS;
    this.#state = "connecting";
    this.#begunMs = performance.now();
    this.#session = new Session({
      controlPath,
      identity,
      generation,
      now,
      nonce,
      beatMs: Math.max(LEAST_BEAT_MS, Math.min(BEAT_MS, quiet / 2)),
      liveness: { silentAfterMs: Math.min(SILENT_AFTER_MS, quiet), endAfterMs: 2 * quiet },
      pulse: this.#pulse,
      onSilent: (sinceMs) => this.#tell("silent", sinceMs),
      onAnswer: () => this.#tell("answering"),
      onWaiting: () => {
        this.#state = "waiting";
      },
      onStatus: (sent) => {
        const status = readGuestStatus(sent);
        if (status === undefined) return;
        this.#status = status;
        this.#tellStatus();
      },
      onAttached: (agent, questions) => {
        this.#questions = questions;
        this.#agent = agent;
        this.#state = "attached";
        this.#tell("attached", agent);
        this.#data?.begin(agent, nonce);
      },
      onRefused: (sentence) => this.#tell("refused", sentence),
      onEnd: (reason) => this.#ended(reason),
    });
  }

  #ended(reason: VolantError): void {
    const wasAttached = this.#agent !== undefined;
    this.#lastError = reason;
    this.#questions = undefined;
    this.#streams?.end();
    this.#streams = undefined;
    this.#agent = undefined;
    this.#status = undefined;
    this.#data?.end();
    if (wasAttached) {
      if (performance.now() - this.#begunMs >= LASTING_SESSION_MS) this.#pauseMs = FIRST_RETRY_MS;
      this.#tell("detached", reason);
    }
    if (this.#state === "closed") return;
    const growth = this.#state === "connecting" ? RETRY_GROWTH.alone : RETRY_GROWTH.answered;
    this.#state = "connecting";
    this.#retry = setTimeout(() => this.#begin(), this.#pauseMs);
    this.#retry.unref();
    this.#pauseMs = Math.min(this.#pauseMs * growth, LAST_RETRY_MS);
  }

  #streamPort(questions: Questions): StreamPort {
    const { streamPath, randomNonce, heartbeatMs, streamIdleMs } = this.#options;
    return new StreamPort({
      path: streamPath,
      randomNonce,
      greet: (nonce) => this.#ask({ method: "POST", path: "/v1/stream", body: JSON.stringify({ nonce }) }, questions),
      greetingMs: STREAM_LINE_HEARTBEATS * (heartbeatMs ?? DEFAULT_HEARTBEAT_MS),
      idleMs: streamIdleMs ?? STREAM_IDLE_MS,
    });
  }

  /** Those that come in one piece are one: a guest that tells it again and again costs no more for each. */
  #tellStatus(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    queueMicrotask(() => {
      this.#isTelling = false;
      if (this.#status !== undefined) this.emit("status", this.#status);
    });
  }

  /** Listeners run apart from the link: one that throws is a bug of its own, not the link's end. */
  #tell<K extends keyof GuestLinkEvents>(event: K, ...args: GuestLinkEvents[K]): void {
    queueMicrotask(() => (this.emit as (name: string, ...values: unknown[]) => boolean).call(this, event, ...args));
  }

  #unreachable(cause?: unknown): VolantError {
    if (this.#state === "closed") return closedError();
    return new VolantError("guest_unreachable", "the guest's agent is not connected", { cause });
  }

  #failure(error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted === true) return signal.reason;
    return error instanceof VolantError ? error : this.#unreachable(error);
  }

  /** @throws VolantError the agent's refusal, `guest_unreachable`, `exhausted`; the signal's reason */
  #ask(question: Question, questions = this.#questions): Promise<JsonObject> {
    if (questions === undefined) return Promise.reject(this.#unreachable());
    return questions.ask(question).then(({ status, body }) => {
      if (status >= 200 && status < 300) return body;
      throw refusal(question, status, body);
    });
  }

  /** A request whose answer is read whole. */
  async #exchange(request: GuestRequest): Promise<string> {
    const { status, stream } = await this.request(request);
    let text: string;
    try {
      text = await readWhole(stream);
    } catch (error) {
      throw this.#failure(error, request.signal);
    } finally {
      stream.destroy();
    }
    if (status >= 200 && status < 300) return text;
    throw refusal(request, status, parseObject(text));
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
function refusal(
  { method, path }: { readonly method: string; readonly path: string },
  status: number,
  body: JsonObject | undefined,
): VolantError {
  const message = asMessage(body?.["error"], 1024) ?? `the guest's agent answered ${method} ${path} with ${status}`;
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
