/** A VM's serial console over a WebSocket: raw bytes both ways. */
import type { Duplex } from "node:stream";
import { acceptStream, feed, sendAll, type SocketRequest } from "./web-sockets.ts";

/** Text messages are taken as their UTF-8; what is printed goes out as binary ones, since a guest may print anything. */
export function serveConsoleSocket(request: SocketRequest, serial: Duplex): void {
  acceptStream(request, serial, (client) => {
    feed(client, serial);
    void sendAll(client, serial as AsyncIterable<Buffer>, request.onBug);
  });
}
