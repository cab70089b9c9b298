/** A VM's serial console over a WebSocket: raw bytes both ways. */
import type { Duplex } from "node:stream";
import { acceptSocket, sendAll, type SocketRequest } from "./web-sockets.ts";

/** Text messages are taken as their UTF-8; what is printed goes out as binary ones, since a guest may print anything. */
export function serveConsoleSocket(request: SocketRequest, serial: Duplex): void {
  // Before the handshake is done nobody reads, and what fails then is seen as the stream's end.
  serial.on("error", () => {});
  // Also of a handshake that comes to nothing.
  request.socket.once("close", () => serial.destroy());
  acceptSocket(request, (client) => {
    client.on("message", (data: Buffer) => {
      if (serial.writable && !serial.write(data)) client.pause();
    });
    serial.on("drain", () => client.resume());
    void sendAll(client, serial as AsyncIterable<Buffer>, request.onBug);
  });
}
