/**
 * Connections that leave HTTP: streams into a guest (exec, forward), and upgrades that the proxy passes on, such as WebSocket. They pass the same
 * gates as every request. What a stream carries is the client's and the guest's; volantd looks at none of it.
 */
import { randomUUID } from "node:crypto";
import { ServerResponse, STATUS_CODES, type IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import {
  ROUTE_SCOPES,
  STREAM_ENDPOINTS,
  STREAM_PROTOCOL,
  VolantError,
  type Scope,
  type StreamId,
} from "@volant/contract";
import type { ConsoleUseCases, LogUseCases, ReachUseCases } from "../engine/use-cases.ts";
import type { ApiLog } from "./api-config.ts";
import { pathOf, type Recorder } from "./audit-entry.ts";
import { withSocketKey } from "./credentials.ts";
import { readExecQuery, serveExecSocket } from "./exec-socket.ts";
import { failureOf } from "./failure.ts";
import { joinStreams } from "../join-streams.ts";
import { checkScope, type Client, type Gates, type Origin } from "./gates.ts";
import { serveLogSocket } from "./logs.ts";
import type { KeyConnections } from "./key-connections.ts";
import { parseProxyTarget, proxyUpgrade } from "./proxy.ts";
import { readVmName } from "./url-name.ts";
import { parseSocketUrl, socketIdOf, type SocketTarget } from "./web-sockets.ts";
import { serveConsoleSocket } from "./console.ts";

export interface UpgradeOptions {
  readonly reach: ReachUseCases;
  readonly consoles: ConsoleUseCases;
  readonly logs: LogUseCases;
  readonly gates: Gates;
  readonly connections: KeyConnections;
  /** Told of each request, once it is known what becomes of it. */
  readonly record: Recorder;
  readonly log: ApiLog;
}

interface StreamTarget {
  readonly id: StreamId;
  readonly name: string;
  readonly query: URLSearchParams;
}

const STREAMS = (Object.entries(STREAM_ENDPOINTS) as [StreamId, { method: string; path: string }][]).map(
  ([id, { method, path }]) => ({
    id,
    method,
    pattern: new RegExp(`^${path.replace(":name", "([^/?]+)")}(?:\\?(.*))?$`, "s"),
  }),
);

/** The stream route that a request's target names. @throws VolantError `invalid` */
function parseStreamTarget(method: string | undefined, target: string): StreamTarget | undefined {
  for (const stream of STREAMS) {
    const match = stream.pattern.exec(target);
    if (match === null || method !== stream.method) continue;
    const [, encoded = "", query = ""] = match;
    return { id: stream.id, name: readVmName(encoded), query: new URLSearchParams(query) };
  }
  return undefined;
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
  const { url = "" } = request;
  if (upgrade.toLowerCase() === STREAM_PROTOCOL) return STREAMS.some(({ pattern }) => pattern.test(url));
  if (upgrade.toLowerCase() !== "websocket") return false;
  return socketIdOf(url) !== undefined || parseProxyTarget(url) !== undefined;
}

/** What a request asks for; what is neither a stream nor a WebSocket of volantd's own goes to the workload. */
function scopeOf(url: string): Scope {
  const id = socketIdOf(url) ?? STREAMS.find(({ pattern }) => pattern.test(url))?.id ?? "vms.agent";
  return ROUTE_SCOPES[id];
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
    // Each direction is watched by itself, and over TLS a few more times: more than Node takes for no leak.
    socket.setMaxListeners(20);
    const gone = new AbortController();
    socket.once("close", () => {
      this.#sockets.delete(socket);
      gone.abort();
    });
    // Whatever fails closes the socket, and that is seen.
    socket.on("error", () => {});
    if (head.length > 0) socket.unshift(head);
    const requestId = randomUUID();
    const { gates, record, log } = this.#options;
    const origin = gates.origin(request);
    const scope = scopeOf(request.url ?? "");
    let client: Client | undefined;
    const tell = (status: number): void => record({ request, requestId, origin, client, scope, status });
    try {
      const allowed = this.#admit(request, origin);
      const isOwn = parseProxyTarget(request.url ?? "") === undefined;
      const headers = socketIdOf(request.url ?? "") !== undefined ? withSocketKey(request.headers) : request.headers;
      client = gates.identify(origin, headers, request.url ?? "", isOwn);
      const refusal = checkScope(client, scope);
      if (refusal !== undefined) throw refusal;
      if (client.keyId !== undefined) this.#options.connections.hold(client.keyId, request.socket);
      await this.#connect(request, socket, gone.signal, origin, { "x-request-id": requestId, ...allowed });
      tell(101);
    } catch (error) {
      if (gone.signal.aborted) return;
      const { status, body, unexpected, headers = {} } = failureOf(error, requestId);
      tell(status);
      if (unexpected) log.error({ err: error, requestId, path: pathOf(request.url) }, "request failed");
      const response = new ServerResponse(request);
      response.shouldKeepAlive = false;
      response.assignSocket(socket as never);
      response.writeHead(status, {
        "content-type": "application/json; charset=utf-8",
        "x-request-id": requestId,
        ...headers,
      });
      response.end(JSON.stringify(body), () => socket.end());
    }
  }

  /** @throws VolantError what refuses it */
  #admit(request: IncomingMessage, origin: Origin): Readonly<Record<string, string>> {
    if (this.#closing) throw new VolantError("not_ready", "volantd is shutting down");
    const { verdict, allowOrigin } = this.#options.gates.address(origin, request.headers);
    if (verdict !== undefined) throw verdict;
    return allowOrigin === undefined ? {} : { "access-control-allow-origin": allowOrigin, vary: "Origin" };
  }

  async #connect(
    request: IncomingMessage,
    socket: Duplex,
    signal: AbortSignal,
    { forwarded }: Origin,
    headers: Readonly<Record<string, string>>,
  ): Promise<void> {
    const { reach, consoles, gates } = this.#options;
    const webSocket = parseSocketUrl(request.url ?? "");
    if (webSocket !== undefined) {
      await this.#serveSocket(webSocket, request, socket, signal);
      return;
    }
    const proxied = parseProxyTarget(request.url ?? "");
    if (proxied !== undefined) {
      const { isKey } = gates;
      await proxyUpgrade({ reach, isKey, forwarded, request, socket, target: proxied, signal, headers });
      return;
    }
    const target = parseStreamTarget(request.method, request.url ?? "");
    if (target === undefined) throw new VolantError("not_found", `there is no stream ${request.method} here`);
    const open = {
      "vms.exec": () => reach.exec(target.name, signal),
      "vms.forward": () => reach.forward(target.name, readPort(target.query), signal),
      "vms.console": () => consoles.open(target.name, signal),
    } as const satisfies Record<StreamId, () => Promise<Duplex>>;
    const stream = await open[target.id]();
    const lines = Object.entries({ connection: "Upgrade", upgrade: STREAM_PROTOCOL, ...headers });
    const text = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
    socket.write(`HTTP/1.1 101 ${STATUS_CODES[101]}\r\n${text}\r\n`);
    // Standard input's end is a frame of its own, and a console has none: a client that hangs up is gone, and what it ran goes too.
    if (target.id !== "vms.forward") socket.once("end", () => stream.destroy());
    joinStreams(socket, stream);
  }

  /** @throws VolantError what refuses it, before the connection is a WebSocket */
  async #serveSocket(
    target: SocketTarget,
    request: IncomingMessage,
    socket: Duplex,
    signal: AbortSignal,
  ): Promise<void> {
    const { consoles, logs, reach, log } = this.#options;
    const onBug = (error: unknown) => log.error({ err: error, path: pathOf(request.url) }, "a WebSocket failed");
    if (target.id === "vms.logs.socket") {
      serveLogSocket(logs, { request, socket, onBug }, target, signal);
      return;
    }
    if (target.id === "vms.exec.socket") {
      const query = readExecQuery(target);
      serveExecSocket({ request, socket, onBug }, await reach.exec(target.name, signal), query);
      return;
    }
    const [unexpected] = Object.keys(target.query);
    if (unexpected !== undefined)
      throw new VolantError("invalid", `query: unknown field ${JSON.stringify(unexpected)}`);
    serveConsoleSocket({ request, socket, onBug }, await consoles.open(target.name, signal));
  }
}
