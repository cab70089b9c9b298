/** The gates as fastify's hooks: who is let in, headers that every answer has, and the audit log's line. */
import {
  ANSWERED_BY_HEADER,
  API_KEY_HEADER,
  IDEMPOTENCY_HEADER,
  MCP_REQUEST_HEADERS,
  ROUTE_SPECS,
  TOTAL_COUNT_HEADER,
  VolantError,
  type Scope,
} from "@volant/contract";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Recorder } from "./audit-entry.ts";
import { guardBody } from "./connection.ts";
import { checkScope, type Client, type Gates, type Origin } from "./gates.ts";
import type { KeyConnections } from "./key-connections.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Answered without a key. */
    open?: boolean;
    /** What a key must be allowed to; `admin` where nothing is said. */
    scope?: Scope;
    /** The URL is the workload's, beyond its first part. */
    proxied?: boolean;
    /** The body is a file. */
    upload?: boolean;
    /** The body is a file, and may pause. */
    patient?: boolean;
  }
  interface FastifyRequest {
    origin: Origin;
  }
}

export interface AdmissionOptions {
  readonly gates: Gates;
  readonly connections: KeyConnections;
  readonly record: Recorder;
  readonly isClosing: () => boolean;
}

/** What pages of other origins may read of answers, and send with requests, beyond what every page may (Fetch Standard, section 3.3.3). */
const EXPOSED_HEADERS = [TOTAL_COUNT_HEADER, ANSWERED_BY_HEADER, "X-Request-Id", "Retry-After"];
const ALLOWED_HEADERS = [
  "Content-Type",
  "Authorization",
  API_KEY_HEADER,
  "Last-Event-ID",
  IDEMPOTENCY_HEADER,
  ...MCP_REQUEST_HEADERS,
];

/** @returns whether the request was a preflight, and is answered */
function allowOrigin(request: FastifyRequest, reply: FastifyReply, origin: string): boolean {
  reply.header("access-control-allow-origin", origin).header("vary", "Origin");
  reply.header("access-control-expose-headers", EXPOSED_HEADERS.join(", "));
  if (request.method !== "OPTIONS" || request.headers["access-control-request-method"] === undefined) return false;
  reply.header("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE");
  reply.header("access-control-allow-headers", ALLOWED_HEADERS.join(", "));
  reply.header("access-control-max-age", "600").code(204);
  return true;
}

/** What a route asks for. A path that leads nowhere asks for any key: without one, it tells nothing. */
function neededScope({ routeOptions, is404 }: FastifyRequest): Scope {
  return routeOptions.config.scope ?? (is404 ? "read" : "admin");
}

export function addAdmission(app: FastifyInstance, options: AdmissionOptions): void {
  const { gates, connections, record, isClosing } = options;
  app.decorateRequest("origin", null as unknown as Origin);

  function admit(request: FastifyRequest): Client | undefined {
    const { open, proxied } = request.routeOptions.config;
    if (open === true) {
      gates.count(request.origin);
      return undefined;
    }
    return gates.identify(request.origin, request.headers, request.raw.url ?? "", proxied !== true);
  }

  app.addHook("onRequest", async (request, reply) => {
    const { headers, raw, routeOptions } = request;
    const { upload, patient } = routeOptions.config;
    guardBody(raw, reply.raw, patient === true ? "stream" : upload === true ? "file" : "document");
    request.origin = gates.origin(raw);
    const scope = neededScope(request);
    let client: Client | undefined;
    reply.raw.once("close", () => {
      const { statusCode: status } = reply.raw;
      record({ request: raw, requestId: request.id, origin: request.origin, client, scope, status });
    });
    reply.header("x-request-id", request.id).header("x-content-type-options", "nosniff");
    reply.header("cache-control", "no-store");
    if (isClosing()) throw new VolantError("not_ready", "volantd is shutting down");
    const { verdict, allowOrigin: allowed } = gates.address(request.origin, headers);
    if (verdict !== undefined) throw verdict;
    if (allowed !== undefined && allowOrigin(request, reply, allowed)) return reply.send();
    client = admit(request);
    if (client === undefined) return undefined;
    const isRevocation = routeOptions.url === ROUTE_SPECS["keys.revoke"].path;
    if (client.keyId !== undefined) connections.hold(client.keyId, raw.socket, isRevocation ? reply.raw : undefined);
    const refusal = checkScope(client, scope);
    if (refusal !== undefined) throw refusal;
    return undefined;
  });
  app.addHook("onSend", async (_request, reply) => {
    if (isClosing()) reply.header("connection", "close");
  });
}
