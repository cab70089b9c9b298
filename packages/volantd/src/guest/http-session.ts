/** HTTP/2 with a guest's agent on a connection to it: the greeting that begins it, and its end. Wire format: docs/agent-protocol.md. */
import { connect as connectHttp2, type ClientHttp2Session } from "node:http2";
import { createConnection, type Socket } from "node:net";
import { VolantError } from "@volant/contract";
import { SyncScanner, syncLine } from "./stream-sync.ts";

/** The measured compromise between throughput and the time that a small request waits behind a bulk transfer. */
const WINDOW_BYTES = 256 * 1024;
/** What a ping carries: of no meaning to anybody. Without one Node asks the system for eight random bytes each time. */
const PING = Buffer.from("volant-p", "latin1");
/** A heartbeat that comes so much after its time tells of this process, not of the guest. */
const HELD_UP_MS = 1000;

/** A Unix socket, connected. */
export function connectTo(path: string, signal: AbortSignal): Promise<Socket> {
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

/** Without this, streams of a connection that ends would end as if their programs had said all that they had to say. */
export function breakStreams(socket: Socket, http: ClientHttp2Session, broken: () => VolantError): void {
  for (const event of ["end", "close"]) socket.prependOnceListener(event, () => http.destroy(broken()));
}
