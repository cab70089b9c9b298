/**
 * One session with a guest's agent: both sockets, the greeting, and HTTP/2 (the guest is the server). Wire format: docs/agent-protocol.md. When
 * anything about it ends, all of it ends; GuestLink begins the next one.
 */
import { connect as connectHttp2, type ClientHttp2Session } from "node:http2";
import { createConnection, type Socket } from "node:net";
import { VolantError } from "@volant/contract";
import { encodeHello, Handshake, MAX_CONTROL_LINE_BYTES, type AgentInfo, type GuestIdentity } from "./handshake.ts";
import { LineReader } from "./line-reader.ts";
import { SyncScanner, syncLine } from "./stream-sync.ts";

/** The measured compromise between throughput and the time that a small request waits behind a bulk transfer. */
const WINDOW_BYTES = 256 * 1024;
/** First pause before a hello without ack is repeated; each further one doubles, to the ceiling. */
const FIRST_REPEAT_MS = 1000;
const LAST_REPEAT_MS = 8000;

export interface SessionOptions {
  readonly controlPath: string;
  readonly streamPath: string;
  readonly identity: GuestIdentity;
  readonly generation: number;
  readonly nonce: string;
  readonly now: () => Date;
  /** A ping is sent this often; one that is not answered by the next ends the session. */
  readonly heartbeatMs: number;
  /** The sockets are connected, and the guest has not answered yet. */
  readonly onWaiting: () => void;
  readonly onAttached: (agent: AgentInfo, http: ClientHttp2Session) => void;
}

/** A Unix socket, connected. */
function connectTo(path: string, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path, signal });
    // Stays for the socket's whole life, because a socket that fails without a listener would end the process.
    socket.on("error", reject);
    socket.once("connect", () => resolve(socket));
    socket.once("close", () => reject(new VolantError("guest_unreachable", `the connection to ${path} was closed`)));
  });
}

/** Runs one session to its end. Always rejects: with why it ended. */
export async function runSession(options: SessionOptions, signal: AbortSignal): Promise<never> {
  const ended = Promise.withResolvers<never>();
  // A failure between two awaits must not count as unhandled.
  ended.promise.catch(() => {});
  const lost = (what: string) => new VolantError("guest_unreachable", what);
  const cleanUp: (() => void)[] = [];
  const onAbort = () => ended.reject(lost("the link was closed"));
  signal.addEventListener("abort", onAbort, { once: true });
  cleanUp.push(() => signal.removeEventListener("abort", onAbort));
  try {
    signal.throwIfAborted();
    // The stream comes first: the agent must find a host on it when it has answered the hello.
    const stream = await connectTo(options.streamPath, signal);
    cleanUp.push(() => stream.destroy());
    const control = await connectTo(options.controlPath, signal);
    cleanUp.push(() => control.destroy());
    for (const socket of [stream, control])
      socket.once("close", () => ended.reject(lost("the hypervisor closed the link")));
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
    const http = await Promise.race([synchronised, ended.promise]);
    http.on("error", (error: Error) => ended.reject(lost(`the link to the guest's agent broke: ${error.message}`)));
    http.once("close", () => ended.reject(lost("the guest's agent closed the link")));
    http.once("goaway", () => ended.reject(lost("the guest's agent ended the session")));
    cleanUp.push(keepAlive(http, options.heartbeatMs, () => ended.reject(lost("the guest's agent does not answer"))));
    options.onAttached(agent, http);
    return await ended.promise;
  } finally {
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
function synchronise(stream: Socket, nonce: string): Promise<ClientHttp2Session> {
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
    stream.on("data", onData);
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

/** Pings until it is told to stop. */
function keepAlive(http: ClientHttp2Session, heartbeatMs: number, onSilence: () => void): () => void {
  let isWaiting = false;
  const timer = setInterval(() => {
    if (isWaiting) return onSilence();
    if (http.destroyed || http.closed) return;
    isWaiting = http.ping((error) => {
      if (error === null) isWaiting = false;
    });
  }, heartbeatMs);
  timer.unref();
  return () => clearInterval(timer);
}
