/** Guards a server's sockets against clients that are slow, silent or speak no HTTP. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { errorStatus, type ErrorCode } from "@volant/contract";
import { BODY_IDLE_MS } from "./api-config.ts";

/** How long a client may go on sending a body that was answered already, before its socket is closed. */
const LEFTOVER_MS = 10_000;

function announcesBody(request: IncomingMessage): boolean {
  return request.headers["transfer-encoding"] !== undefined || Number(request.headers["content-length"] ?? 0) > 0;
}

/**
 * Lets an early answer through to a client that wants the connection closed after it. Closed at once, with bytes of the body unread, the socket would be
 * reset, and the client's kernel would drop the answer (RFC 9112 section 9.6): our side is closed first, and the rest when the body is over.
 */
function closeInStages(request: IncomingMessage): void {
  const { socket } = request;
  // The one call by which Node's server closes a connection that is not kept.
  const staged = () => {
    if (request.complete) return close();
    socket.end();
    return void request.once("close", close);
  };
  const release = () => {
    // A later request of this connection has a say of its own.
    if (socket.destroySoon === staged) delete (socket as Partial<Socket>).destroySoon;
  };
  const close = () => {
    release();
    socket.destroySoon();
  };
  socket.destroySoon = staged;
  request.once("end", release);
}

/** A whole document, a file, or a stream whose source and sink have a pace of their own. */
export type BodyKind = "document" | "file" | "stream";

/**
 * Closes the socket of a client that does not send the body it announced: a document has to arrive whole within 30 s, a file has to
 * keep coming, a stream may pause. A body that is answered before it is over is read and dropped for a short while, so that the answer gets through.
 */
export function guardBody(request: IncomingMessage, response: ServerResponse, kind: BodyKind): void {
  if (!announcesBody(request)) return;
  closeInStages(request);
  // The socket may serve a later request by now, which is not to be cut.
  const cut = () => {
    if (!request.complete) request.socket.destroy();
  };
  const timers: NodeJS.Timeout[] = [];
  if (kind === "file") request.setTimeout(BODY_IDLE_MS, cut);
  if (kind === "document") timers.push(setTimeout(cut, BODY_IDLE_MS).unref());
  response.once("finish", () => {
    // Nothing would end this one's wait where the body is over, and the request with all that is known of it would stay in memory for as long.
    if (!request.complete) timers.push(setTimeout(cut, LEFTOVER_MS).unref());
  });
  const over = () => {
    for (const timer of timers) clearTimeout(timer);
    if (kind === "file") request.setTimeout(0);
  };
  request.once("end", over);
  request.once("close", over);
}

/** Answers what is not HTTP, or has more than 16 KiB of headers, and closes the socket. */
export function refuseGarbage(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const [code, sentence]: [ErrorCode, string] =
    error.code === "HPE_HEADER_OVERFLOW"
      ? ["too_large", "the request's headers are larger than 16 KiB"]
      : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
        ? ["timeout", "the request's headers did not arrive in time"]
        : ["invalid", "this is not an HTTP request"];
  const body = JSON.stringify({ error: sentence, code });
  const head = `HTTP/1.1 ${errorStatus(code)} Refused\r\nContent-Type: application/json\r\nContent-Length: ${body.length}`;
  socket.end(`${head}\r\nConnection: close\r\n\r\n${body}`, () => socket.destroy());
}
