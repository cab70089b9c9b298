/**
 * One session with a guest's agent: both sockets, the greeting, and HTTP/2 (the guest is the server). Wire format: docs/agent-protocol.md. When
 * anything about it ends, all of it ends; GuestLink begins the next one.
 */
import { connect as connectHttp2, type ClientHttp2Session } from "node:http2";
import { createConnection, type Socket } from "node:net";
import { VolantError } from "@volant/contract";
import { encodeHello, Handshake, MAX_CONTROL_LINE_BYTES, type AgentInfo, type GuestIdentity } from "./handshake.ts";
import { LineReader } from "./line-reader.ts";
import { watchLiveness, type LivenessTimes } from "./liveness.ts";
import { SyncScanner, syncLine } from "./stream-sync.ts";

/** The measured compromise between throughput and the time that a small request waits behind a bulk transfer. */
const WINDOW_BYTES = 256 * 1024;
/** First pause before a hello without ack is repeated; each further one doubles, to the ceiling. */
const FIRST_REPEAT_MS = 1000;
const LAST_REPEAT_MS = 8000;

/** What a ping carries: of no meaning to anybody. Without one Node asks the system for eight random bytes each time. */
const PING = Buffer.from("volant-p", "latin1");
/** A heartbeat that comes so much after its time tells of this process, not of the guest. */
const HELD_UP_MS = 1000;

export interface SessionOptions {
  readonly controlPath: string;
  readonly streamPath: string;
  readonly identity: GuestIdentity;
  readonly generation: number;
  readonly nonce: string;
  readonly now: () => Date;
  readonly liveness: LivenessTimes;
  /** How long the agent may take from its ack to its line on the stream port: it sends that once, so a session that missed it would wait for ever. */
  readonly streamLineMs: number;
  /** The agent has not answered since then, on the clock of `performance.now()`; the session goes on. */
  readonly onSilent: (sinceMs: number) => void;
  /** It answers again. */
  readonly onAnswer: () => void;
  /** The sockets are connected, and the guest has not answered yet. */
  readonly onWaiting: () => void;
  readonly onAttached: (agent: AgentInfo, http: ClientHttp2Session) => void;
}

/** A Unix socket, connected. */
function connectTo(path: string, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path });
    // Not the socket's own signal: that listens to it for all its life, in many ways, and ends it with an error that nobody reads.
    const abort = (): void => void socket.destroy();
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
    // Stays for the socket's whole life, because a socket that fails without a listener would end the process.
    socket.on("error", reject);
    const early = () => {
      signal.removeEventListener("abort", abort);
      reject(new VolantError("guest_unreachable", `the connection to ${path} was closed`));
    };
    socket.once("close", early);
    socket.once("connect", () => {
      socket.off("close", early);
      signal.removeEventListener("abort", abort);
      resolve(socket);
    });
  });
}

/** Runs one session to its end. Always rejects: with why it ended. */
export async function runSession(options: SessionOptions, signal: AbortSignal): Promise<never> {
  const ended = Promise.withResolvers<never>();
  // A failure between two awaits must not count as unhandled.
  ended.promise.catch(() => {});
  // The first word of its end is why it ended. What follows would be made for nobody: an error costs as much as many a request.
  let isEnded = false;
  const end = (what: string): void => {
    if (isEnded) return;
    isEnded = true;
    ended.reject(new VolantError("guest_unreachable", what));
  };
  const cleanUp: (() => void)[] = [];
  const onAbort = () => end("the link was closed");
  signal.addEventListener("abort", onAbort, { once: true });
  cleanUp.push(() => signal.removeEventListener("abort", onAbort));
  try {
    signal.throwIfAborted();
    // The stream comes first: the agent must find a host on it when it has answered the hello.
    const stream = await connectTo(options.streamPath, signal);
    cleanUp.push(() => stream.destroy());
    const control = await connectTo(options.controlPath, signal);
    cleanUp.push(() => control.destroy());
    for (const socket of [stream, control]) socket.once("close", () => end("the hypervisor closed the link"));
    options.onWaiting();
    const agent = await Promise.race([greet(control, options, cleanUp), ended.promise]);
    const synchronised = synchronise(stream, options.nonce);
    cleanUp.push(
      () =>
        void synchronised.then(
          (late) => late.destroy(),
          () => {},
        ),
    );
    const late = setTimeout(
      () => end("the guest's agent answered the hello, and is silent on its stream port"),
      options.streamLineMs,
    );
    cleanUp.push(() => clearTimeout(late));
    late.unref();
    const http = await Promise.race([synchronised, ended.promise]);
    clearTimeout(late);
    http.on("error", (error: Error) => end(`the link to the guest's agent broke: ${error.message}`));
    http.once("close", () => end("the guest's agent closed the link"));
    http.once("goaway", () => end("the guest's agent ended the session"));
    const stopWatching = watchLiveness({
      ...options.liveness,
      ping: (answered) => {
        if (http.destroyed || http.closed) return false;
        return http.ping(PING, (error) => {
          if (error === null) answered();
        });
      },
      received: () => stream.bytesRead,
      onSilent: options.onSilent,
      onAnswer: options.onAnswer,
      onEnd: () => end("the guest's agent does not answer"),
      now: () => performance.now(),
    });
    cleanUp.push(stopWatching);
    options.onAttached(agent, http);
    return await ended.promise;
  } finally {
    isEnded = true;
    for (const action of cleanUp.toReversed()) action();
  }
}

/** Says hello until the agent answers. Keeps reading afterwards, so that nothing the guest writes can pile up. */
function greet(control: Socket, options: SessionOptions, cleanUp: (() => void)[]): Promise<AgentInfo> {
  const { identity, generation, nonce, now } = options;
  const handshake = new Handshake(nonce);
  const reader = new LineReader(MAX_CONTROL_LINE_BYTES);
  let timer: NodeJS.Timeout | undefined;
  const repeat = (pauseMs: number) => {
    // What an unread socket holds is enough; the repetition is for an agent that was restarted or restored meanwhile.
    if (control.writableLength === 0) control.write(encodeHello(nonce, generation, identity, now()));
    timer = setTimeout(repeat, pauseMs, Math.min(pauseMs * 2, LAST_REPEAT_MS));
    timer.unref();
  };
  cleanUp.push(() => clearTimeout(timer));
  return new Promise((resolve, reject) => {
    control.on("data", (bytes: Buffer) => {
      for (const line of reader.feed(bytes)) {
        const step = handshake.receive(line, now());
        if (step.kind === "refused") reject(step.error);
        if (step.kind !== "begin") continue;
        clearTimeout(timer);
        if (step.clock !== undefined) control.write(step.clock);
        resolve(step.agent);
      }
    });
    repeat(FIRST_REPEAT_MS);
  });
}

/**
 * Discards bytes until the agent's line, answers with ours and starts HTTP/2. The agent is silent after its line until it has seen ours, so
 * that line is the last of the bytes that this process reads itself: node:http2 must never find any left over (it would take them on the
 * next tick, and throw from there if the session has ended by then).
 */
export function synchronise(stream: Socket, nonce: string): Promise<ClientHttp2Session> {
  const scanner = new SyncScanner(nonce);
  return new Promise((resolve, reject) => {
    const onData = (bytes: Buffer) => {
      const used = scanner.feed(bytes);
      if (used === undefined) return;
      stream.off("data", onData);
      stream.pause();
      if (used < bytes.length || stream.readableLength > 0) {
        reject(new VolantError("guest_unreachable", "the guest's agent spoke out of turn"));
        return;
      }
      stream.write(syncLine(nonce));
      resolve(startHttp2(stream));
    };
    // It may have been paused by whoever read from it before.
    stream.on("data", onData).resume();
  });
}

function startHttp2(stream: Socket): ClientHttp2Session {
  const http = connectHttp2("http://guest", {
    createConnection: () => stream,
    settings: { initialWindowSize: WINDOW_BYTES, enablePush: false },
    // As many stalled streams as there can be, each with a full window.
    maxSessionMemory: 64,
    maxHeaderListPairs: 64,
  });
  // An error before the session's owner listens must not end the process.
  http.on("error", () => {});
  // Node allows this call from then on.
  http.once("connect", () => http.setLocalWindowSize(WINDOW_BYTES));
  return http;
}

/**
 * Pings until it is told to stop.
 *
 * @param isHeld whether nothing can be sent for now: no ping is, and none that is under way need be answered
 */
export function keepAlive(
  http: ClientHttp2Session,
  heartbeatMs: number,
  onSilence: () => void,
  isHeld: () => boolean = () => false,
): () => void {
  let isWaiting = false;
  let lastMs = performance.now();
  const timer = setInterval(() => {
    const nowMs = performance.now();
    const isLate = nowMs - lastMs > heartbeatMs + HELD_UP_MS;
    lastMs = nowMs;
    if (isHeld()) {
      isWaiting = false;
      return;
    }
    // It was this process that was held up: the answer may have arrived, and not been read yet.
    if (isWaiting && isLate) return;
    if (isWaiting) return onSilence();
    if (http.destroyed || http.closed) return;
    isWaiting = http.ping(PING, (error) => {
      if (error === null) isWaiting = false;
    });
  }, heartbeatMs);
  timer.unref();
  return () => clearInterval(timer);
}
