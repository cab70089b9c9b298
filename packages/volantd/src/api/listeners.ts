/** The API's two servers: TCP, with or without TLS, and the Unix socket. */
import { createServer, type RequestListener, type Server, type ServerOptions } from "node:http";
import type { Server as TlsServer } from "node:https";
import type { Socket } from "node:net";
import { VolantError } from "@volant/contract";
import { DEFAULT_MAX_CONNECTIONS, type ApiConfig, type ApiLog } from "./api-config.ts";
import { refuseGarbage } from "./connection.ts";
import { limitConnections } from "./connection-limit.ts";
import { listenLocally, type ReleaseSocket } from "./local-socket.ts";
import { readTls, watchTls } from "./tls-files.ts";
import { isUpgrade } from "./upgrades.ts";

/** A client of TLS that says nothing is given up after so long. */
const HANDSHAKE_MS = 10_000;

/** Of both servers. */
export const SERVER_OPTIONS = {
  shouldUpgradeCallback: isUpgrade,
  maxHeaderSize: 16_384,
  headersTimeout: 10_000,
  connectionsCheckingInterval: 5000,
} as const satisfies ServerOptions & { readonly shouldUpgradeCallback: unknown };

/** What fastify makes the TCP server of. @throws VolantError `invalid` for a certificate or key that can't be used */
export function tcpOptions({ tls }: ApiConfig): object {
  if (tls === undefined) return { http: SERVER_OPTIONS };
  return { https: { ...SERVER_OPTIONS, ...readTls(tls), minVersion: "TLSv1.2", handshakeTimeout: HANDSHAKE_MS } };
}

/** Holds the TCP server to its number of connections, and its certificate fresh. @returns what ends the latter */
export function guardTcp(server: Server, config: ApiConfig, log: ApiLog): () => void {
  const total = config.maxConnections ?? DEFAULT_MAX_CONNECTIONS;
  limitConnections(server, { total, perAddress: Math.ceil(total / 2) });
  if (config.tls === undefined) return () => {};
  return watchTls(config.tls, log, (material) =>
    (server as TlsServer).setSecureContext({ ...material, minVersion: "TLSv1.2" }),
  );
}

/** The Unix socket's server. */
export class LocalServer {
  readonly #server: Server;
  readonly #sockets = new WeakSet<Socket>();
  #release: ReleaseSocket | undefined;

  constructor(handle: RequestListener) {
    this.#server = createServer({ ...SERVER_OPTIONS, requestTimeout: 0 } as ServerOptions, handle);
    this.#server.on("connection", (socket: Socket) => this.#sockets.add(socket));
    this.#server.on("clientError", (error: Error, socket) => refuseGarbage(error, socket as Socket));
  }

  onUpgrade(serve: (request: Parameters<RequestListener>[0], socket: Socket, head: Buffer) => void): void {
    this.#server.on("upgrade", (request, socket, head) => serve(request, socket as Socket, head));
  }

  /** Whether a connection came by it: of one that is closed, too, which has no address that would tell. */
  has(socket: Socket): boolean {
    return this.#sockets.has(socket);
  }

  /** @throws VolantError `in_use`, `invalid`, `not_ready` */
  async listen(path: string): Promise<void> {
    this.#release = await listenLocally(this.#server, path);
  }

  /** Takes no more connections, and resolves when those that are there have ended. */
  async close(): Promise<void> {
    this.#release?.();
    this.#release = undefined;
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeIdleConnections();
    await closed;
  }

  closeAllConnections(): void {
    this.#server.closeAllConnections();
  }
}

/** What listen(2) and bind(2) say, in words. */
export function listenFailure(error: unknown, where: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === "EADDRINUSE") {
    return new VolantError("in_use", `the API cannot listen on ${where}: the address is in use`, {
      cause: error,
      hint: "is volantd running already? Otherwise set VOLANT_API_LISTEN to another address",
    });
  }
  if (code === "EADDRNOTAVAIL" || code === "EACCES" || code === "ENOTFOUND") {
    const why = code === "EACCES" ? "it may not use that port" : "this host has no such address";
    return new VolantError("not_ready", `the API cannot listen on ${where}: ${why}`, {
      cause: error,
      hint: "set VOLANT_API_LISTEN to an address of this host",
    });
  }
  return error;
}
