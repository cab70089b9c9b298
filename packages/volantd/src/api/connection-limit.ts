/**
 * Bounds how many connections the API has. A new one is always worth more than one that has been idle: silent clients, however many, keep nobody out.
 */
import type { Server } from "node:http";
import type { Socket } from "node:net";

export interface ConnectionLimits {
  /** Of all clients. */
  readonly total: number;
  /** Of one address. */
  readonly perAddress: number;
}

interface Held {
  readonly socket: Socket;
  readonly address: string;
  /** Requests that are being answered. */
  busy: number;
}

/** TLS has a socket of its own over the connection's: what both have is the client's end. */
function endOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

/** The connections of one server, the one that has been idle longest first. */
export class Connections {
  readonly #limits: ConnectionLimits;
  readonly #held = new Map<string, Held>();
  readonly #perAddress = new Map<string, number>();

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  get count(): number {
    return this.#held.size;
  }

  /** Takes a connection in: where there are too many, the longest idle one goes, or where none is idle the new one. */
  add(socket: Socket): void {
    const address = socket.remoteAddress ?? "";
    const ofAddress = this.#perAddress.get(address) ?? 0;
    const isFull = ofAddress >= this.#limits.perAddress && !this.#evict(address);
    if (isFull || (this.#held.size >= this.#limits.total && !this.#evict())) {
      socket.destroy();
      return;
    }
    const end = endOf(socket);
    const held = { socket, address, busy: 0 };
    this.#held.set(end, held);
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1);
    socket.once("close", () => this.#forget(end, held));
  }

  /** A request has come on a connection. @returns what says that it is answered */
  begins(socket: Socket): () => void {
    const end = endOf(socket);
    const held = this.#held.get(end);
    if (held === undefined) return () => {};
    held.busy += 1;
    return () => {
      held.busy -= 1;
      if (this.#held.get(end) !== held) return;
      // To the end of the line.
      this.#held.delete(end);
      this.#held.set(end, held);
    };
  }

  #evict(address?: string): boolean {
    for (const [end, held] of this.#held) {
      if (held.busy > 0 || (address !== undefined && held.address !== address)) continue;
      this.#forget(end, held);
      held.socket.destroy();
      return true;
    }
    return false;
  }

  #forget(end: string, held: Held): void {
    if (this.#held.get(end) !== held) return;
    this.#held.delete(end);
    const left = (this.#perAddress.get(held.address) ?? 1) - 1;
    if (left > 0) this.#perAddress.set(held.address, left);
    else this.#perAddress.delete(held.address);
  }
}

/** Holds a server to the limits. Upgraded connections are busy to their end. */
export function limitConnections(server: Server, limits: ConnectionLimits): Connections {
  const connections = new Connections(limits);
  server.on("connection", (socket: Socket) => connections.add(socket));
  server.on("request", ({ socket }, response) => {
    const ends = connections.begins(socket);
    response.once("close", ends);
  });
  server.prependListener("upgrade", ({ socket }) => void connections.begins(socket));
  return connections;
}
