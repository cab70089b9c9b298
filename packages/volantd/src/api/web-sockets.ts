/** What volantd's WebSockets have in common: their URLs, the key of a browser, and how they end. */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import {
  MAX_SOCKET_MESSAGE_BYTES,
  SOCKET_ENDPOINTS,
  SOCKET_PROTOCOL,
  VolantError,
  type SocketId,
} from "@volant/contract";
import { WebSocketServer, type WebSocket } from "ws";
import { readVmName } from "./url-name.ts";

const PING_MS = 15_000;
/** Close codes of RFC 6455 section 7.4.1 and IANA's registry: normal, internal error, try again later. */
const [CLOSE_DONE, CLOSE_BUG, CLOSE_LATER] = [1000, 1011, 1013];

export interface SocketTarget {
  readonly id: SocketId;
  readonly name: string;
  readonly query: Readonly<Record<string, string>>;
}

const PATTERNS = (Object.entries(SOCKET_ENDPOINTS) as [SocketId, { readonly path: string }][]).map(
  ([id, { path }]) => [id, new RegExp(`^${path.replace(":name", "([^/?]+)")}(?:\\?(.*))?$`, "s")] as const,
);

/** The WebSocket of volantd's own that a request's URL is that of. */
export function socketIdOf(url: string): SocketId | undefined {
  return PATTERNS.find(([, pattern]) => pattern.test(url))?.[0];
}

/** The WebSocket that a URL names; undefined for another URL. @throws VolantError `invalid` */
export function parseSocketUrl(url: string): SocketTarget | undefined {
  for (const [id, pattern] of PATTERNS) {
    const match = pattern.exec(url);
    if (match === null) continue;
    const [, encoded = "", query = ""] = match;
    return { id, name: readVmName(encoded), query: Object.fromEntries(new URLSearchParams(query)) };
  }
  return undefined;
}

export interface SocketRequest {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  /** Called with what is a bug. */
  readonly onBug: (error: unknown) => void;
}

const server = new WebSocketServer({
  noServer: true,
  maxPayload: MAX_SOCKET_MESSAGE_BYTES,
  perMessageDeflate: false,
  handleProtocols: (offered) => (offered.has(SOCKET_PROTOCOL) ? SOCKET_PROTOCOL : false),
});

/** Makes a connection a WebSocket, and watches over it. */
export function acceptSocket(
  { request, socket }: Pick<SocketRequest, "request" | "socket">,
  serve: (client: WebSocket) => void,
): void {
  server.handleUpgrade(request, socket, Buffer.alloc(0), (client) => {
    client.on("error", () => {});
    watch(client);
    serve(client);
  });
}

/** The same for one that carries a stream both ways: whoever hangs up ends the stream, also before the handshake is done, or where that comes to nothing. */
export function acceptStream(
  { request, socket }: SocketRequest,
  stream: Duplex,
  serve: (client: WebSocket) => void,
): void {
  // Whatever fails is seen as the end of the stream.
  stream.on("error", () => {});
  socket.once("close", () => stream.destroy());
  acceptSocket({ request, socket }, serve);
}

/** Passes what comes on to the stream, where `isTaken` says so, and reads no more of it than the stream takes. */
export function feed(client: WebSocket, stream: Duplex, isTaken: (isBinary: boolean) => boolean = () => true): void {
  client.on("message", (data: Buffer, isBinary: boolean) => {
    if (isTaken(isBinary) && stream.writable && !stream.write(data)) client.pause();
  });
  stream.on("drain", () => client.resume());
}

/** Sends all of them, each once the one before was taken: a slow reader is waited for here, and by nobody else. Then closes. */
export async function sendAll(
  client: WebSocket,
  messages: AsyncIterable<string | Uint8Array>,
  onBug: (error: unknown) => void,
): Promise<void> {
  try {
    for await (const message of messages) {
      const sent = await new Promise<boolean>((resolve) => client.send(message, (error) => resolve(error == null)));
      if (!sent) return;
    }
    client.close(CLOSE_DONE);
  } catch (error) {
    // What its reader's leaving has broken off.
    if (client.readyState !== client.OPEN) return;
    if (!(error instanceof VolantError)) onBug(error);
    const [code, reason] =
      error instanceof VolantError
        ? [error.code === "rate_limited" ? CLOSE_LATER : CLOSE_DONE, error.message]
        : [CLOSE_BUG, "a bug in volantd"];
    // RFC 6455 section 5.5: at most 125 bytes, two of which are the code.
    client.close(code, reason.slice(0, 120));
  }
}

/** Ends a connection whose other end no longer answers. */
function watch(client: WebSocket): void {
  let answered = true;
  client.on("pong", () => (answered = true));
  const timer = setInterval(() => {
    if (!answered) client.terminate();
    answered = false;
    client.ping();
  }, PING_MS).unref();
  client.once("close", () => clearInterval(timer));
}
