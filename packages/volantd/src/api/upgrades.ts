/**
 * Connections that leave HTTP: streams into a guest (exec, forward), and upgrades that the proxy passes on, such as WebSocket. They pass the same
 * gates as every request. What a stream carries is the client's and the guest's; volantd looks at none of it.
 */
import { randomUUID } from "node:crypto";
import { ServerResponse, STATUS_CODES, type IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { checkSchema, STREAM_ENDPOINTS, STREAM_PROTOCOL, VmName, VolantError, type StreamId } from "@volant/contract";
import type { ReachUseCases } from "../engine/use-cases.ts";
import type { Gates } from "./access.ts";
import type { ApiLog } from "./api-config.ts";
import { failureOf } from "./failure.ts";
import { joinStreams } from "./join-streams.ts";
import { parseProxyTarget, proxyUpgrade } from "./proxy.ts";

export interface UpgradeOptions {
  readonly reach: ReachUseCases;
  readonly gates: Gates;
  readonly apiKey: string | undefined;
  readonly log: ApiLog;
}

interface StreamTarget {
  readonly id: StreamId;
  readonly name: string;
  readonly query: URLSearchParams;
}

/** The stream route that a request's target names. */
function parseStreamTarget(method: string | undefined, target: string): StreamTarget | undefined {
  const [path = "", query = ""] = target.split("?", 2);
  for (const [id, endpoint] of Object.entries(STREAM_ENDPOINTS) as [StreamId, { method: string; path: string }][]) {
    const match = new RegExp(`^${endpoint.path.replace(":name", "([^/]+)")}$`).exec(path);
    if (match === null || method !== endpoint.method) continue;
    return { id, name: readName(match[1] ?? ""), query: new URLSearchParams(query) };
  }
  return undefined;
}

function readName(encoded: string): string {
  try {
    return checkSchema(VmName, decodeURIComponent(encoded), "path");
  } catch (error) {
    if (error instanceof VolantError) throw error;
    throw new VolantError("invalid", "the request path is not a valid URL path");
  }
}

/** @throws VolantError `invalid` */
export function readPort(query: URLSearchParams): number {
  const text = query.get("port") ?? "";
  const port = /^[1-9]\d{0,4}$/.test(text) ? Number(text) : 0;
  const extra = [...query.keys()].find((key) => key !== "port");
  if (extra !== undefined) throw new VolantError("invalid", `query: unknown field ${JSON.stringify(extra)}`);
  if (port >= 1 && port <= 65_535) return port;
  throw new VolantError("invalid", `query: "port" must be a port of the guest, from 1 to 65535`);
}

/** Whether a request that offers an upgrade is answered here; every other one is answered as if it had not offered it. */
export function isUpgrade(request: IncomingMessage): boolean {
  const { upgrade = "" } = request.headers;
  const [path = ""] = (request.url ?? "").split("?", 1);
  if (upgrade.toLowerCase() === STREAM_PROTOCOL) return /^\/api\/v1\/vms\/[^/]+\/(exec|forward)$/.test(path);
  return upgrade.toLowerCase() === "websocket" && parseProxyTarget(request.url ?? "") !== undefined;
}

export class Upgrades {
  readonly #options: UpgradeOptions;
  readonly #sockets = new Set<Duplex>();
  #closing = false;

  constructor(options: UpgradeOptions) {
    this.#options = options;
  }

  /** Ends all of them, and lets none begin. */
  end(): void {
    this.#closing = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Serves a request that {@link isUpgrade} took, to the end of its connection's first half. */
  async serve(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    this.#sockets.add(socket);
    const gone = new AbortController();
    socket.once("close", () => {
      this.#sockets.delete(socket);
      gone.abort();
    });
    // Whatever fails closes the socket, and that is seen.
    socket.on("error", () => {});
    if (head.length > 0) socket.unshift(head);
    const requestId = randomUUID();
    try {
      const allowed = this.#admit(request);
      await this.#connect(request, socket, gone.signal, { "x-request-id": requestId, ...allowed });
    } catch (error) {
      if (gone.signal.aborted) return;
      const { status, body, unexpected } = failureOf(error, requestId);
      if (unexpected) this.#options.log.error({ err: error, requestId, url: request.url }, "request failed");
      const response = new ServerResponse(request);
      response.shouldKeepAlive = false;
      response.assignSocket(socket as never);
      response.writeHead(status, { "content-type": "application/json; charset=utf-8", "x-request-id": requestId });
      response.end(JSON.stringify(body), () => socket.end());
    }
  }

  /** @throws VolantError what refuses it */
  #admit(request: IncomingMessage): Readonly<Record<string, string>> {
    if (this.#closing) throw new VolantError("not_ready", "volantd is shutting down");
    const { gates } = this.#options;
    const { verdict, allowOrigin } = gates.address(request.socket.remoteAddress, request.headers);
    const refusal = verdict ?? gates.key(request.headers);
    if (refusal !== undefined) throw refusal;
    return allowOrigin === undefined ? {} : { "access-control-allow-origin": allowOrigin, vary: "Origin" };
  }

  async #connect(
    request: IncomingMessage,
    socket: Duplex,
    signal: AbortSignal,
    headers: Readonly<Record<string, string>>,
  ): Promise<void> {
    const { reach, apiKey } = this.#options;
    const proxied = parseProxyTarget(request.url ?? "");
    if (proxied !== undefined) {
      await proxyUpgrade({ reach, apiKey, request, socket, target: proxied, signal, headers });
      return;
    }
    const target = parseStreamTarget(request.method, request.url ?? "");
    if (target === undefined) throw new VolantError("not_found", `there is no stream ${request.method} here`);
    const stream =
      target.id === "vms.exec"
        ? await reach.exec(target.name, signal)
        : await reach.forward(target.name, readPort(target.query), signal);
    const lines = Object.entries({ connection: "Upgrade", upgrade: STREAM_PROTOCOL, ...headers });
    const text = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
    socket.write(`HTTP/1.1 101 ${STATUS_CODES[101]}\r\n${text}\r\n`);
    // Standard input's end is a frame of its own: a client of exec that hangs up is gone, and what it ran goes too.
    if (target.id === "vms.exec") socket.once("end", () => stream.destroy());
    joinStreams(socket, stream);
  }
}
