/**
 * Routes that leave the pattern of request and answer: upgraded connections, WebSockets and the proxy. They are served apart from the route table, and
 * stand in the OpenAPI document as far as it has words for them.
 */
import { Type, type TObject } from "typebox";
import {
  AGENT_PATH,
  MCP_PATH,
  SOCKET_ENDPOINTS,
  SOCKET_PROTOCOL,
  STREAM_ENDPOINTS,
  STREAM_PROTOCOL,
} from "./endpoints.ts";
import { ExecSocketQuery } from "./exec-socket.ts";
import type { ErrorCode } from "./errors.ts";
import { VmLogQuery } from "./logs.ts";
import { VmName } from "./names.ts";
import { ROUTE_SCOPES, type Scope } from "./scopes.ts";

export interface StreamRoute {
  /** The OpenAPI `operationId`. */
  readonly id: string;
  readonly method: string;
  readonly path: string;
  readonly summary: string;
  readonly description: string;
  readonly params: TObject;
  readonly query?: TObject;
  /** What the request's `Upgrade` field has to say; such a route's good answer is 101. */
  readonly upgrade?: string;
  readonly scope: Scope;
  /** The good answer of a route without `upgrade`, where it is not the workload's. */
  readonly answer?: string;
  readonly errors: readonly ErrorCode[];
}

const closed = { additionalProperties: false } as const;
const vmParams = Type.Object({ name: VmName }, closed);
const proxyParams = Type.Object(
  { name: VmName, path: Type.String({ description: "A path of the workload, slashes included" }) },
  closed,
);

const reachErrors: readonly ErrorCode[] = ["not_found", "wrong_state", "guest_unreachable", "exhausted"];

const SOCKET_RULES = `Subprotocol: ${SOCKET_PROTOCOL}. A browser, which can't send the key as a header, offers volant.key.<base64url of the key> as another subprotocol. Close code 1013: the reader was too slow.`;

const PROXY_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const;

const proxied: readonly StreamRoute[] = PROXY_METHODS.map((method) => ({
  id: `vms.agent.${method.toLowerCase()}`,
  scope: ROUTE_SCOPES["vms.agent"],
  method,
  path: `${AGENT_PATH}/:path`,
  summary: "The workload, through the guest's agent",
  description:
    "The request goes to the workload as HTTP/1.1, WebSocket included, and its answer comes back, with a Content-Security-Policy that sandboxes its pages. The host's key is not passed on.",
  params: proxyParams,
  errors: reachErrors,
}));

export const STREAM_ROUTES: readonly StreamRoute[] = [
  {
    id: "vms.exec",
    scope: ROUTE_SCOPES["vms.exec"],
    ...STREAM_ENDPOINTS["vms.exec"],
    summary: "Run a program in a guest",
    description: "After the 101 the connection carries the frames of docs/agent-protocol.md, section Exec, both ways.",
    params: vmParams,
    upgrade: STREAM_PROTOCOL,
    errors: reachErrors,
  },
  {
    id: "vms.forward",
    scope: ROUTE_SCOPES["vms.forward"],
    ...STREAM_ENDPOINTS["vms.forward"],
    summary: "One TCP connection to a port of a guest's 127.0.0.1",
    description: "After the 101 the connection carries the bytes of both directions, each of which ends by itself.",
    params: vmParams,
    query: Type.Object({ port: Type.Integer({ minimum: 1, maximum: 65_535 }) }, closed),
    upgrade: STREAM_PROTOCOL,
    errors: reachErrors,
  },
  {
    id: "vms.console",
    scope: ROUTE_SCOPES["vms.console"],
    ...STREAM_ENDPOINTS["vms.console"],
    summary: "A VM's serial console",
    description:
      "After the 101 the connection carries what is printed from then on, and what is typed. Any number may share a console; one that reads too slowly is cut off.",
    params: vmParams,
    upgrade: STREAM_PROTOCOL,
    errors: reachErrors,
  },
  {
    id: "vms.console.socket",
    scope: ROUTE_SCOPES["vms.console.socket"],
    ...SOCKET_ENDPOINTS["vms.console.socket"],
    summary: "A VM's serial console, over a WebSocket",
    description: `What is printed comes as binary messages; what is typed may be sent as binary or text. ${SOCKET_RULES}`,
    params: vmParams,
    upgrade: "websocket",
    errors: reachErrors,
  },
  {
    id: "vms.logs.socket",
    scope: ROUTE_SCOPES["vms.logs.socket"],
    ...SOCKET_ENDPOINTS["vms.logs.socket"],
    summary: "What a VM's workload has printed, over a WebSocket",
    description: `Each message is a VmLogLine in JSON; it goes on with new lines unless follow=false. ${SOCKET_RULES}`,
    params: vmParams,
    query: VmLogQuery,
    upgrade: "websocket",
    errors: ["not_found"],
  },
  {
    id: "vms.exec.socket",
    scope: ROUTE_SCOPES["vms.exec.socket"],
    ...SOCKET_ENDPOINTS["vms.exec.socket"],
    summary: "Run a program in a guest, over a WebSocket",
    description: `Binary messages of at most 64 KiB are pieces, cut anywhere, of the frames of docs/agent-protocol.md, section Exec, both ways. With window, text messages {"taken":<bytes>} tell what has been read. ${SOCKET_RULES}`,
    params: vmParams,
    query: ExecSocketQuery,
    upgrade: "websocket",
    errors: reachErrors,
  },
  {
    id: "vms.agent.health",
    scope: ROUTE_SCOPES["vms.agent"],
    method: "GET",
    path: `${AGENT_PATH}/healthz`,
    summary: "Whether a guest's agent answers",
    description: "The agent's own health; agent/v1/healthz is the workload's /healthz.",
    params: vmParams,
    errors: reachErrors,
  },
  ...proxied,
  {
    id: "mcp.protocol",
    scope: ROUTE_SCOPES["mcp.protocol"],
    method: "POST",
    path: MCP_PATH,
    summary: "The Model Context Protocol, over Streamable HTTP",
    description:
      "A JSON-RPC message of the protocol, which has documents of its own; docs/mcp.md lists the tools. There are no sessions: each message stands by itself. Every tool asks another route, with this request's key.",
    answer: "A JSON-RPC answer, as JSON or as one server-sent event",
    params: Type.Object({}, closed),
    errors: [],
  },
];
