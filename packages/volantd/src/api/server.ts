/**
 * The HTTP API: fastify for routing and parsing, the contract's route table for what exists and what is valid, use cases for everything
 * that happens. Order of the gates: peer address, Host, Origin, key; then the route's schema.
 */
import { randomUUID } from "node:crypto";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import {
  AGENT_PATH,
  API_KEY_HEADER,
  checkSchema,
  PLANNED_ROUTES,
  ROUTE_IDS,
  ROUTE_SPECS,
  STREAM_ENDPOINTS,
  STREAM_PROTOCOL,
  TOTAL_COUNT_HEADER,
  VolantError,
  type RouteId,
  type RouteSpec,
} from "@volant/contract";
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { ReachUseCases, UseCases } from "../engine/use-cases.ts";
import { createGates, type Gates } from "./access.ts";
import { DEFAULT_MAX_IMAGE_BYTES, HEARTBEAT_MS, MAX_JSON_BYTES, type ApiConfig, type ApiLog } from "./api-config.ts";
import { guardBody, refuseGarbage } from "./connection.ts";
import { EventStreams } from "./events.ts";
import { failureOf } from "./failure.ts";
import type { Handlers, RouteInput, RouteOutput } from "./handler.ts";
import { imageHandlers } from "./images.ts";
import { pluginHandlers } from "./plugins.ts";
import { readQuery } from "./query.ts";
import { systemHandlers } from "./system.ts";
import { parseProxyTarget, proxyRequest } from "./proxy.ts";
import { isUpgrade, Upgrades } from "./upgrades.ts";
import { vmHandlers } from "./vms.ts";

/** Requests under way may end for this long when the API closes. */
const CLOSE_GRACE_MS = 3000;

export interface ApiOptions {
  readonly useCases: UseCases;
  readonly config: ApiConfig;
  readonly log: ApiLog;
  /** Milliseconds between heartbeats of event streams. Default: 15 s. */
  readonly heartbeatMs?: number;
}

export interface Api {
  /** Base URL, such as `http://127.0.0.1:7777`. */
  readonly address: string;
  /** Ends event streams, lets requests under way finish for 3 s, closes every socket. Safe to call twice. */
  close(): Promise<void>;
}

type AnyHandler = (input: RouteInput<RouteId>) => RouteOutput<RouteId> | Promise<RouteOutput<RouteId>>;

declare module "fastify" {
  interface FastifyContextConfig {
    /** Answered without a key. */
    open?: boolean;
    /** The body is a file. */
    upload?: boolean;
  }
}

/** Body of a request to a route that takes none: nothing, or the empty object that some clients always send. */
function checkNoBody(body: unknown): undefined {
  if (body === undefined || body === null) return undefined;
  if (typeof body === "object" && !(body instanceof Readable) && Object.keys(body).length === 0) return undefined;
  throw new VolantError("invalid", "this route takes no request body");
}

function readInput(route: RouteSpec, request: FastifyRequest): RouteInput<RouteId> {
  const query = request.query as Record<string, string | string[]>;
  const unexpected = route.query === undefined ? Object.keys(query)[0] : undefined;
  if (unexpected !== undefined) {
    throw new VolantError("invalid", `query: unknown field ${JSON.stringify(unexpected)}`);
  }
  if (route.upload === true && !(request.body instanceof Readable)) {
    throw new VolantError("invalid", "the request has no file", {
      hint: "send the file as the request body with Content-Type: application/octet-stream",
    });
  }
  const input = {
    params: route.params === undefined ? undefined : checkSchema(route.params, request.params, "path"),
    query: route.query === undefined ? undefined : checkSchema(route.query, readQuery(route.query, query), "query"),
    body:
      route.body !== undefined
        ? checkSchema(route.body, request.body, "request body")
        : route.upload === true
          ? undefined
          : checkNoBody(request.body),
    upload: request.body,
  };
  // The table's types follow from the schemas that were just checked.
  return input as unknown as RouteInput<RouteId>;
}

function addParsers(app: FastifyInstance): void {
  const parseJson = app.getDefaultJsonParser("error", "error");
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, text, done) => {
    // Clients that set the content type on every request, with a body or without, are common.
    if (text === "") done(null, undefined);
    else void parseJson(request, text as string, done);
  });
  app.addContentTypeParser("application/octet-stream", (_request, payload, done) => done(null, payload));
}

function addGates(app: FastifyInstance, gates: Gates, isClosing: () => boolean): void {
  app.addHook("onRequest", async (request, reply) => {
    const { headers, routeOptions } = request;
    guardBody(request.raw, reply.raw, routeOptions.config.upload === true);
    reply.header("x-request-id", request.id).header("x-content-type-options", "nosniff");
    reply.header("cache-control", "no-store");
    if (isClosing()) throw new VolantError("not_ready", "volantd is shutting down");
    const { verdict, allowOrigin } = gates.address(request.socket.remoteAddress, headers);
    if (verdict !== undefined) throw verdict;
    if (allowOrigin !== undefined) {
      reply.header("access-control-allow-origin", allowOrigin).header("vary", "Origin");
      reply.header("access-control-expose-headers", `${TOTAL_COUNT_HEADER}, X-Request-Id`);
      if (request.method === "OPTIONS" && headers["access-control-request-method"] !== undefined) {
        reply.header("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
        reply.header("access-control-allow-headers", `Content-Type, Authorization, ${API_KEY_HEADER}, Last-Event-ID`);
        return reply.header("access-control-max-age", "600").code(204).send();
      }
    }
    if (routeOptions.config.open === true) return;
    const keyRefusal = gates.key(headers);
    if (keyRefusal !== undefined) throw keyRefusal;
  });
  app.addHook("onSend", async (_request, reply) => {
    if (isClosing()) reply.header("connection", "close");
  });
}

function addRoutes(app: FastifyInstance, handlers: Readonly<Record<string, AnyHandler>>, maxImageBytes: number): void {
  for (const id of ROUTE_IDS) {
    const route = ROUTE_SPECS[id];
    const handle = handlers[id];
    if (handle === undefined) continue;
    app.route({
      method: route.method,
      url: route.path,
      config: { open: route.open === true, upload: route.upload === true },
      ...(route.upload === true ? { bodyLimit: maxImageBytes } : {}),
      handler: async (request, reply) => {
        const { body, headers } = await handle(readInput(route, request));
        return reply
          .code(route.status)
          .headers({ ...headers })
          .send(body);
      },
    });
  }
}

function addEventRoute(app: FastifyInstance, streams: EventStreams): void {
  const route = ROUTE_SPECS["events.vms"];
  app.route({
    method: "GET",
    url: route.path,
    exposeHeadRoute: false,
    handler: async (request, reply) => {
      readInput(route, request);
      const last = request.headers["last-event-id"];
      if (last !== undefined && (typeof last !== "string" || !/^[0-9]{1,15}$/.test(last))) {
        throw new VolantError("invalid", "the header Last-Event-ID is not the id of an event");
      }
      reply.hijack();
      await streams.serve(reply.raw, reply.getHeaders(), last === undefined ? undefined : Number(last));
    },
  });
}

/** Streams begin with an upgrade, which never comes here: whoever does has not asked for it. */
function addStreamRoutes(app: FastifyInstance): void {
  for (const { method, path } of Object.values(STREAM_ENDPOINTS)) {
    app.route({
      method,
      url: path,
      handler: async () => {
        throw new VolantError("invalid", "this route is a stream", {
          hint: `send Connection: Upgrade and Upgrade: ${STREAM_PROTOCOL}`,
        });
      },
    });
  }
}

function addProxy(app: FastifyInstance, reach: ReachUseCases, apiKey: string | undefined): void {
  void app.register(async (scope) => {
    // Bodies are not for us: they are streamed on as they are.
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", (_request, _payload, done) => done(null, undefined));
    for (const url of [AGENT_PATH, `${AGENT_PATH}/*`]) {
      scope.route({
        method: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        url,
        config: { upload: true },
        handler: async (request, reply) => {
          const target = parseProxyTarget(request.raw.url ?? "");
          if (target === undefined) throw new VolantError("invalid", "the request path is not a valid URL path");
          const gone = new AbortController();
          reply.raw.once("close", () => gone.abort());
          const { "cache-control": _, ...headers } = reply.getHeaders();
          const { raw: response } = reply;
          const { signal } = gone;
          await proxyRequest({ reach, apiKey, request: request.raw, response, target, signal, headers });
          reply.hijack();
        },
      });
    }
  });
}

function addPlannedRoutes(app: FastifyInstance): void {
  for (const { methods, path, what } of PLANNED_ROUTES) {
    app.route({
      method: [...methods] as ("GET" | "POST")[],
      url: path,
      // Before the body is looked at: whatever is asked of such a route, the answer is the same.
      onRequest: async () => {
        throw new VolantError("not_supported", `${what}: not supported by this version of Volant`);
      },
      handler: async () => undefined,
    });
  }
}

function addFailures(
  app: FastifyInstance,
  log: ApiLog,
): (error: unknown, request: FastifyRequest, reply: FastifyReply) => void {
  const answer = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const { status, body, unexpected } = failureOf(error, request.id);
    // A client that hung up in the middle of its request made no bug of ours, and reads no answer.
    if (unexpected && request.raw.destroyed && !request.raw.complete) return;
    if (unexpected) {
      log.error({ err: error, requestId: request.id, method: request.method, url: request.url }, "request failed");
    }
    if (!reply.sent) void reply.code(status).send(body);
    else if (reply.raw.writable) reply.raw.destroy();
  };
  app.setErrorHandler(answer);
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.replace(/\?.*$/s, "").slice(0, 200);
    answer(new VolantError("not_found", `there is no route ${request.method} ${path}`), request, reply);
  });
  return answer;
}

function listenFailure(error: unknown, where: string): unknown {
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

/**
 * Starts the API.
 *
 * @throws VolantError `in_use` or `not_ready` when it cannot listen there, `invalid` for a network that is none
 */
export async function startApi({ useCases, config, log, heartbeatMs = HEARTBEAT_MS }: ApiOptions): Promise<Api> {
  let closing: Promise<void> | undefined;
  const maxImageBytes = config.maxImageBytes ?? DEFAULT_MAX_IMAGE_BYTES;
  const streams = new EventStreams(useCases.events, heartbeatMs);
  const gates = createGates(config);
  const upgrades = new Upgrades({ reach: useCases.reach, gates, apiKey: config.apiKey, log });
  let answer: ReturnType<typeof addFailures> | undefined;
  const app = fastify({
    logger: false,
    genReqId: () => randomUUID(),
    requestIdHeader: false,
    bodyLimit: MAX_JSON_BYTES,
    requestTimeout: 0,
    http: {
      shouldUpgradeCallback: isUpgrade,
      maxHeaderSize: 16_384,
      headersTimeout: 10_000,
      connectionsCheckingInterval: 5000,
    },
    // Longer than any name, so that the schema can say what is wrong with one.
    routerOptions: { maxParamLength: 16_384 },
    forceCloseConnections: "idle",
    return503OnClosing: false,
    clientErrorHandler: (error, socket) => refuseGarbage(error, socket),
    frameworkErrors: (error, request, reply) => answer?.(error, request, reply),
  });
  answer = addFailures(app, log);
  addParsers(app);
  addGates(app, gates, () => closing !== undefined);
  const handlers: Handlers<Exclude<RouteId, "events.vms">> = {
    ...systemHandlers(useCases.system),
    ...vmHandlers(useCases.vms),
    ...pluginHandlers(useCases.plugins),
    ...imageHandlers(useCases.images, maxImageBytes),
  };
  addRoutes(app, handlers as unknown as Readonly<Record<string, AnyHandler>>, maxImageBytes);
  addEventRoute(app, streams);
  addPlannedRoutes(app);
  addStreamRoutes(app);
  addProxy(app, useCases.reach, config.apiKey);
  app.server.on("upgrade", (request, socket, head) => void upgrades.serve(request, socket, head));

  const host = config.listenHost.includes(":") ? `[${config.listenHost}]` : config.listenHost;
  try {
    await app.listen({ host: config.listenHost, port: config.listenPort });
  } catch (error) {
    await app.close();
    throw listenFailure(error, `${host}:${config.listenPort}`);
  }
  const { port } = app.server.address() as AddressInfo;

  async function close(): Promise<void> {
    streams.end();
    upgrades.end();
    const force = setTimeout(() => app.server.closeAllConnections(), CLOSE_GRACE_MS);
    await app.close();
    clearTimeout(force);
  }
  return { address: `http://${host}:${port}`, close: () => (closing ??= close()) };
}
