/**
 * The HTTP API: fastify for routing and parsing, the contract's route table for what exists and what is valid, use cases for everything
 * that happens. The gates come first (gates.ts), then the route's schema.
 */
import { randomUUID } from "node:crypto";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import {
  AGENT_PATH,
  checkSchema,
  IDEMPOTENCY_HEADER,
  ARCHIVE_TYPE,
  ROUTE_IDS,
  ROUTE_SCOPES,
  ROUTE_SPECS,
  SOCKET_ENDPOINTS,
  STREAM_ENDPOINTS,
  STREAM_PROTOCOL,
  VolantError,
  type RouteId,
  type RouteSpec,
} from "@volant/contract";
import type { TSchema } from "typebox";
import { fastify, type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { DurabilityUseCases, ReachUseCases, UseCases } from "../engine/use-cases.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import { addAdmission } from "./admission.ts";
import { DEFAULT_MAX_IMAGE_BYTES, HEARTBEAT_MS, MAX_JSON_BYTES, type ApiConfig, type ApiLog } from "./api-config.ts";
import { artifactHandlers } from "./artifacts.ts";
import { pathOf } from "./audit-entry.ts";
import { refuseGarbage } from "./connection.ts";
import { deploymentHandlers } from "./deployments.ts";
import { addEventRoute, eventHandlers, EventStreams } from "./events.ts";
import { failureOf } from "./failure.ts";
import { addBackupRoute, addFileRoutes } from "./files.ts";
import { createGates, type Gates } from "./gates.ts";
import {
  goneSignal,
  type Handlers,
  type ReadInput,
  type RouteInput,
  type RouteOutput,
  type StreamedRoute,
} from "./handler.ts";
import { guestHandlers } from "./guest-run.ts";
import { imageHandlers } from "./images.ts";
import { KeyConnections } from "./key-connections.ts";
import { keyHandlers } from "./keys.ts";
import { guardTcp, listenFailure, LocalServer, tcpOptions } from "./listeners.ts";
import { addLogRoute } from "./logs.ts";
import { addMcpRoutes } from "./mcp.ts";
import { pluginHandlers } from "./plugins.ts";
import { readQuery } from "./query.ts";
import { systemHandlers } from "./system.ts";
import { addMetricsRoute, tellRequests } from "./telemetry.ts";
import { parseProxyTarget, proxyRequest } from "./proxy.ts";
import { createRecorder, type AuditSink } from "./recorder.ts";
import { Upgrades } from "./upgrades.ts";
import { usageHandlers } from "./usage.ts";
import { configHandlers } from "./vm-config.ts";
import { vfioHandlers } from "./vfio.ts";
import { vmHandlers } from "./vms.ts";
import { addWorkloadRoutes } from "./workloads.ts";

/** Requests under way may end for this long when the API closes. */
const CLOSE_GRACE_MS = 3000;

export interface ApiOptions {
  readonly useCases: UseCases;
  readonly config: ApiConfig;
  readonly log: ApiLog;
  /** Who did what. Default: nowhere. */
  readonly audit?: AuditSink;
  /** Milliseconds between heartbeats of event streams. Default: 15 s. */
  readonly heartbeatMs?: number;
  /** Told of each request once it has been answered. */
  readonly telemetry?: Pick<Telemetry, "request">;
}

const SILENT: AuditSink = { append: () => {} };

export interface Api {
  /** Base URL, such as `http://127.0.0.1:7777`. */
  readonly address: string;
  /** Ends event streams, lets requests under way finish for 3 s, closes every socket. Safe to call twice. */
  close(): Promise<void>;
}

type AnyHandler = (input: RouteInput<RouteId>) => RouteOutput<RouteId> | Promise<RouteOutput<RouteId>>;

/** Body of a request to a route that takes none: nothing, or the empty object that some clients always send. */
function checkNoBody(body: unknown): undefined {
  if (body === undefined || body === null) return undefined;
  if (typeof body === "object" && !(body instanceof Readable) && Object.keys(body).length === 0) return undefined;
  throw new VolantError("invalid", "this route takes no request body");
}

function readKey(route: RouteSpec, request: FastifyRequest): string | undefined {
  const schema: TSchema | undefined = route.headers?.properties[IDEMPOTENCY_HEADER];
  const key = request.headers[IDEMPOTENCY_HEADER.toLowerCase()];
  if (schema === undefined || key === undefined) return undefined;
  return checkSchema(schema, key, `header ${IDEMPOTENCY_HEADER}`) as string;
}

function readInput(route: RouteSpec, request: FastifyRequest): Omit<RouteInput<RouteId>, "signal"> {
  const query = request.query as Record<string, string | string[]>;
  const unexpected = route.query === undefined ? Object.keys(query)[0] : undefined;
  if (unexpected !== undefined) {
    throw new VolantError("invalid", `query: unknown field ${JSON.stringify(unexpected)}`);
  }
  if (route.upload === true && !(request.body instanceof Readable)) {
    throw new VolantError("invalid", "the request has no file", {
      hint: `send the file as the request body with Content-Type: ${(route.uploadTypes ?? ["application/octet-stream"]).join(" or ")}`,
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
    key: readKey(route, request),
  };
  // The table's types follow from the schemas that were just checked.
  return input as unknown as Omit<RouteInput<RouteId>, "signal">;
}

function addParsers(app: FastifyInstance): void {
  const parseJson = app.getDefaultJsonParser("error", "error");
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, text, done) => {
    // Clients that set the content type on every request, with a body or without, are common.
    if (text === "") done(null, undefined);
    else void parseJson(request, text as string, done);
  });
  for (const type of ["application/octet-stream", ARCHIVE_TYPE]) {
    app.addContentTypeParser(type, (_request, payload, done) => done(null, payload));
  }
}

/** Methods that change nothing (RFC 9110 section 9.2.1), and promise nothing. */
const SAFE_METHODS: readonly string[] = ["GET", "HEAD"];

function addRoutes(
  app: FastifyInstance,
  handlers: Readonly<Record<string, AnyHandler>>,
  durability: DurabilityUseCases,
  maxImageBytes: number,
): void {
  for (const id of ROUTE_IDS) {
    const route = ROUTE_SPECS[id];
    const handle = handlers[id];
    if (handle === undefined) continue;
    app.route({
      method: route.method,
      url: route.path,
      config: { open: route.open === true, scope: ROUTE_SCOPES[id], upload: route.upload === true },
      ...(route.upload === true ? { bodyLimit: maxImageBytes } : {}),
      handler: async (request, reply) => {
        const { body, json, headers, isAccepted } = await handle({
          ...readInput(route, request),
          signal: goneSignal(reply),
        });
        // Here for all routes: none can promise what a power failure would take back.
        if (!SAFE_METHODS.includes(route.method)) await durability.settled();
        reply.code(isAccepted === true ? 202 : route.status).headers({ ...headers });
        return json === undefined ? reply.send(body) : reply.type("application/json; charset=utf-8").send(json);
      },
    });
  }
}

/** Streams begin with an upgrade, which never comes here: whoever does has not asked for it. */
function addStreamRoutes(app: FastifyInstance): void {
  for (const id of Object.keys(STREAM_ENDPOINTS) as (keyof typeof STREAM_ENDPOINTS)[]) {
    const { method, path } = STREAM_ENDPOINTS[id];
    app.route({
      method,
      url: path,
      config: { scope: ROUTE_SCOPES[id] },
      handler: async () => {
        throw new VolantError("invalid", "this route is a stream", {
          hint: `send Connection: Upgrade and Upgrade: ${STREAM_PROTOCOL}`,
        });
      },
    });
  }
  for (const id of Object.keys(SOCKET_ENDPOINTS) as (keyof typeof SOCKET_ENDPOINTS)[]) {
    const { method, path } = SOCKET_ENDPOINTS[id];
    app.route({
      method,
      url: path,
      config: { scope: ROUTE_SCOPES[id] },
      exposeHeadRoute: false,
      handler: async () => {
        throw new VolantError("invalid", "this route is a WebSocket");
      },
    });
  }
}

function addProxy(app: FastifyInstance, reach: ReachUseCases, { isKey }: Gates): void {
  void app.register(async (scope) => {
    // Bodies are not for us: they are streamed on as they are.
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser("*", (_request, _payload, done) => done(null, undefined));
    for (const url of [AGENT_PATH, `${AGENT_PATH}/*`]) {
      scope.route({
        method: ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        url,
        config: { upload: true, proxied: true, scope: ROUTE_SCOPES["vms.agent"] },
        handler: async (request, reply) => {
          const { forwarded } = request.origin;
          const target = parseProxyTarget(request.raw.url ?? "");
          if (target === undefined) throw new VolantError("invalid", "the request path is not a valid URL path");
          const signal = goneSignal(reply);
          const { "cache-control": _, ...headers } = reply.getHeaders();
          const { raw: response } = reply;
          await proxyRequest({ reach, isKey, forwarded, request: request.raw, response, target, signal, headers });
          reply.hijack();
        },
      });
    }
  });
}

function addFailures(
  app: FastifyInstance,
  log: ApiLog,
): (error: unknown, request: FastifyRequest, reply: FastifyReply) => void {
  const answer = (error: unknown, request: FastifyRequest, reply: FastifyReply) => {
    const { status, body, headers = {}, unexpected } = failureOf(error, request.id);
    // A client that hung up in the middle of its request made no bug of ours, and reads no answer.
    if (unexpected && request.raw.destroyed && !request.raw.complete) return;
    if (unexpected) {
      const path = pathOf(request.url);
      log.error({ err: error, requestId: request.id, method: request.method, path }, "request failed");
    }
    if (!reply.sent) void reply.code(status).headers(headers).send(body);
    else if (reply.raw.writable) reply.raw.destroy();
  };
  app.setErrorHandler(answer);
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.replace(/\?.*$/s, "").slice(0, 200);
    answer(new VolantError("not_found", `there is no route ${request.method} ${path}`), request, reply);
  });
  return answer;
}

/**
 * Starts the API.
 *
 * @throws VolantError `in_use` or `not_ready` when it cannot listen there, `invalid` for a network that is none
 */
export async function startApi({
  useCases,
  config,
  log,
  heartbeatMs = HEARTBEAT_MS,
  telemetry,
  audit = SILENT,
}: ApiOptions): Promise<Api> {
  let closing: Promise<void> | undefined;
  const maxImageBytes = config.maxImageBytes ?? DEFAULT_MAX_IMAGE_BYTES;
  const streams = new EventStreams(useCases.events, heartbeatMs);
  const nowMs = () => performance.now();
  const { keys, reach } = useCases;
  const gates = createGates({ config, keys, isLocal: (socket) => local.has(socket), nowMs });
  const record = createRecorder(audit, gates.isKey, nowMs);
  const connections = new KeyConnections(keys);
  const upgrades = new Upgrades({
    reach,
    consoles: useCases.consoles,
    logs: useCases.logs,
    gates,
    connections,
    record,
    log,
  });
  let answer: ReturnType<typeof addFailures> | undefined;
  const app = fastify({
    logger: false,
    genReqId: () => randomUUID(),
    requestIdHeader: false,
    bodyLimit: MAX_JSON_BYTES,
    requestTimeout: 0,
    ...tcpOptions(config),
    // Longer than any name, so that the schema can say what is wrong with one.
    routerOptions: { maxParamLength: 16_384 },
    forceCloseConnections: "idle",
    return503OnClosing: false,
    clientErrorHandler: (error, socket) => refuseGarbage(error, socket),
    frameworkErrors: (error, request, reply) => answer?.(error, request, reply),
  });
  answer = addFailures(app, log);
  if (telemetry !== undefined) tellRequests(app, telemetry);
  addParsers(app);
  addAdmission(app, { gates, connections, record, isClosing: () => closing !== undefined });
  const handlers: Handlers<Exclude<RouteId, StreamedRoute>> = {
    ...systemHandlers(useCases.system, useCases.readiness),
    ...vmHandlers(useCases.vms),
    ...configHandlers(useCases.configs, useCases.vms),
    ...deploymentHandlers(useCases.deployments),
    ...pluginHandlers(useCases.plugins),
    ...artifactHandlers(useCases.artifacts),
    ...imageHandlers(useCases.images, maxImageBytes),
    ...vfioHandlers(useCases.vfio),
    ...usageHandlers(useCases.usage),
    ...guestHandlers(useCases.reach, useCases.consoleLogs),
    ...eventHandlers(useCases.events),
    ...keyHandlers(keys),
  };
  addRoutes(app, handlers as unknown as Readonly<Record<string, AnyHandler>>, useCases.durability, maxImageBytes);
  const read: ReadInput = (id, request) => readInput(ROUTE_SPECS[id], request) as never;
  addEventRoute(app, streams, read);
  addMetricsRoute(app, useCases.metrics, read);
  addBackupRoute(app, useCases.backups, read);
  addFileRoutes(app, useCases.files, read, maxImageBytes);
  addLogRoute(app, useCases.logs, streams, read);
  addWorkloadRoutes(app, useCases.workloads, read);
  addMcpRoutes(app, log);
  addStreamRoutes(app);
  addProxy(app, reach, gates);
  const local = new LocalServer(app.routing);
  app.server.on("upgrade", (request, socket, head) => void upgrades.serve(request, socket, head));
  local.onUpgrade((request, socket, head) => void upgrades.serve(request, socket, head));
  const letGo = guardTcp(app.server, config, log);

  const host = config.listenHost.includes(":") ? `[${config.listenHost}]` : config.listenHost;
  try {
    await app.listen({ host: config.listenHost, port: config.listenPort });
    if (config.socketPath !== undefined) await local.listen(config.socketPath);
  } catch (error) {
    letGo();
    await app.close();
    throw listenFailure(error, `${host}:${config.listenPort}`);
  }
  const { port } = app.server.address() as AddressInfo;

  async function close(): Promise<void> {
    letGo();
    streams.end();
    upgrades.end();
    const force = setTimeout(() => {
      app.server.closeAllConnections();
      local.closeAllConnections();
    }, CLOSE_GRACE_MS);
    await Promise.all([app.close(), local.close()]);
    clearTimeout(force);
  }
  const scheme = config.tls === undefined ? "http" : "https";
  return { address: `${scheme}://${host}:${port}`, close: () => (closing ??= close()) };
}
