/**
 * A program in a guest over a WebSocket: the same frames as over an upgrade, in binary messages. volantd looks at none of them. With a window (the contract's
 * byte-window.ts) text messages tell how much was read; a client that keeps to no window, or talks otherwise, is cut off.
 */
import type { Duplex } from "node:stream";
import {
  checkSchema,
  ExecSocketQuery,
  parseTaken,
  ReceiveWindow,
  SendWindow,
  type ExecSocketQuery as Query,
} from "@volant/contract";
import type { WebSocket } from "ws";
import { readQuery } from "./query.ts";
import { acceptStream, feed, sendAll, type SocketRequest, type SocketTarget } from "./web-sockets.ts";

/** RFC 6455 section 7.4.1: policy violation. */
const CLOSE_POLICY = 1008;

/** @throws VolantError `invalid` */
export function readExecQuery({ query }: SocketTarget): Query {
  return checkSchema(ExecSocketQuery, readQuery(ExecSocketQuery, query), "query");
}

/** Joins a WebSocket to an exec stream that nothing was sent on; whoever hangs up takes the program along. */
export function serveExecSocket(request: SocketRequest, stream: Duplex, { window }: Query): void {
  acceptStream(request, stream, (client) => {
    const output = window === undefined ? untilItEnds(stream) : windowed(stream, client, window);
    if (window === undefined) feed(client, stream, (isBinary) => isBinary || refuseText(client));
    void sendAll(client, output, request.onBug);
  });
}

function refuseText(client: WebSocket): false {
  client.close(CLOSE_POLICY, "a text message, without a window");
  return false;
}

async function* untilItEnds(stream: Duplex): AsyncGenerator<Buffer> {
  try {
    yield* stream as AsyncIterable<Buffer>;
  } catch {
    // It broke: without an exit frame, the client knows.
  }
}

/**
 * What goes out, as the client has room for it. What comes in is not held back on the connection, where the counts that make room come, too: it waits for
 * the stream here, and is bounded by the window.
 */
function windowed(stream: Duplex, client: WebSocket, bytes: number): AsyncIterable<Buffer> {
  const [outgoing, incoming] = [new SendWindow(bytes), new ReceiveWindow(bytes)];
  let wake = () => {};
  client.once("close", () => wake());
  function receive(data: Buffer): void {
    if (!incoming.receive(data.length)) client.close(CLOSE_POLICY, "more bytes than the window allows");
    else if (stream.writable) {
      stream.write(data, () => {
        const told = incoming.take(data.length);
        if (told !== undefined) client.send(told, () => {});
      });
    }
  }
  client.on("message", (data: Buffer, isBinary: boolean) => {
    if (isBinary) return receive(data);
    const taken = parseTaken(data.toString("utf8"));
    if (taken === undefined || !outgoing.take(taken)) client.close(CLOSE_POLICY, "a text message that is no count");
    else wake();
  });
  async function* pieces(): AsyncGenerator<Buffer> {
    for await (const chunk of untilItEnds(stream)) {
      for (let at = 0; at < chunk.length;) {
        while (outgoing.room === 0 && client.readyState === client.OPEN) {
          await new Promise<void>((resolve) => (wake = resolve));
        }
        if (client.readyState !== client.OPEN) return;
        const piece = chunk.subarray(at, at + outgoing.room);
        outgoing.send(piece.length);
        at += piece.length;
        yield piece;
      }
    }
  }
  return pieces();
}
