/**
 * The Model Context Protocol, and the v1 envelope beside it. Both only ask other routes, as the same client (inner-request.ts): what a key may not do, it
 * may not do by a tool either. The protocol's library is loaded at the first message.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import {
  checkSchema,
  ENDPOINTS,
  fillPath,
  isErrorCode,
  MCP_PATH,
  McpCommand,
  ROUTE_SCOPES,
  ROUTE_SPECS,
  TOTAL_COUNT_HEADER,
  VolantError,
  type ErrorBody,
  type RouteId,
} from "@volant/contract";
import { runCommand, type CallRoute, type RouteCall } from "@volant/mcp";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { ApiLog } from "./api-config.ts";
import { goneSignal } from "./handler.ts";
import { askInside } from "./inner-request.ts";

type Route = (request: IncomingMessage, response: ServerResponse) => void;

function urlOf(route: RouteId, { params, query }: RouteCall): string {
  const pairs = Object.entries(query).map(([name, value]): [string, string] => [name, String(value)]);
  const search = pairs.length === 0 ? "" : `?${new URLSearchParams(pairs).toString()}`;
  return `${fillPath(ENDPOINTS[route].path, params)}${search}`;
}

/** The refusal as the route worded it; what is none is a bug. */
function refusalIn(text: string, where: string): Error {
  const { error, code, hint } = JSON.parse(text) as Partial<ErrorBody>;
  if (error === undefined || !isErrorCode(code) || code === "internal") {
    return new Error(`an inner request ended with ${where}: ${error ?? text}`);
  }
  return new VolantError(code, error, hint === undefined ? {} : { hint });
}

/** The data of each server-sent event of a stream that has ended. @throws VolantError what ended it */
function eventsOf(text: string): unknown[] {
  return text.split("\n\n").flatMap((event) => {
    const fields = event.split("\n").map((line) => /^(\w+): ?(.*)$/s.exec(line));
    const field = (name: string) => fields.find((match) => match?.[1] === name)?.[2];
    const [type, data] = [field("event"), field("data")];
    if (type === "error" && data !== undefined) throw refusalIn(data, "an error event");
    // Others with a type say that the stream ends.
    return data === undefined || type !== undefined ? [] : [JSON.parse(data) as unknown];
  });
}

function callerOf(route: Route, outer: IncomingMessage): CallRoute {
  return async (id, call, signal) => {
    const { method, events } = ROUTE_SPECS[id];
    const { body } = call;
    const asked = { method, url: urlOf(id, call), ...(body === undefined ? {} : { body }) };
    const { status, headers, text } = await askInside(route, outer, asked, signal);
    if (status >= 400) throw refusalIn(text, `status ${status}`);
    if (events !== undefined) return { body: eventsOf(text) };
    const total = headers.get(TOTAL_COUNT_HEADER);
    return {
      body: text === "" ? undefined : (JSON.parse(text) as unknown),
      ...(total === null ? {} : { total: Number(total) }),
    };
  };
}

/** The request in the words that the protocol's library has for one. */
function webRequest(request: FastifyRequest, signal: AbortSignal): Request {
  const headers = Object.entries(request.headers).flatMap(([name, value]): [string, string][] =>
    typeof value === "string" ? [[name, value]] : [],
  );
  return new Request(`http://localhost${MCP_PATH}`, { method: request.method, headers, signal });
}

/** The routes `mcp.command` and `mcp.protocol`. */
export function addMcpRoutes(app: FastifyInstance, log: ApiLog): void {
  const route: Route = (request, response) => app.routing(request, response);
  const { method, path } = ENDPOINTS["mcp.command"];
  app.route({
    method,
    url: path,
    config: { scope: ROUTE_SCOPES["mcp.command"] },
    handler: async (request, reply) => {
      const [unexpected] = Object.keys(request.query as object);
      if (unexpected !== undefined) {
        throw new VolantError("invalid", `query: unknown field ${JSON.stringify(unexpected)}`);
      }
      const command = checkSchema(McpCommand, request.body, "request body");
      return runCommand(command, callerOf(route, request.raw), goneSignal(reply));
    },
  });
  app.route({
    method: ["GET", "POST", "DELETE"],
    url: MCP_PATH,
    config: { scope: ROUTE_SCOPES["mcp.protocol"] },
    exposeHeadRoute: false,
    handler: async (request, reply) => {
      const { serveRequest } = await import("@volant/mcp/protocol");
      const call = callerOf(route, request.raw);
      const onBug = (error: unknown) => log.error({ err: error, requestId: request.id }, "an MCP tool failed");
      return reply.send(await serveRequest(webRequest(request, goneSignal(reply)), request.body, { call, onBug }));
    },
  });
}
