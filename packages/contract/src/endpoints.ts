/**
 * Method and path of every route, without its schemas: loading those takes ten times as long as starting the CLI, and a client
 * needs only these at run time. `:name` stands for one path segment. The rest of each route is in routes.ts.
 */
export interface Endpoint {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly path: string;
}

export const ENDPOINTS = {
  "health.get": { method: "GET", path: "/healthz" },
  "ready.get": { method: "GET", path: "/readyz" },
  "metrics.get": { method: "GET", path: "/metrics" },
  "openapi.root": { method: "GET", path: "/openapi" },
  "openapi.get": { method: "GET", path: "/api/v1/openapi" },
  "system.status": { method: "GET", path: "/api/v1/system/status" },
  "system.info": { method: "GET", path: "/api/v1/system/info" },
  "system.summary": { method: "GET", path: "/api/v1/system/summary" },
  "system.backup": { method: "GET", path: "/api/v1/system/backup" },
  "vms.list": { method: "GET", path: "/api/v1/vms" },
  "vms.create": { method: "POST", path: "/api/v1/vms" },
  "vms.get": { method: "GET", path: "/api/v1/vms/:name" },
  "vms.delete": { method: "DELETE", path: "/api/v1/vms/:name" },
  "vms.config.get": { method: "GET", path: "/api/v1/vms/:name/config" },
  "vms.config.patch": { method: "PATCH", path: "/api/v1/vms/:name/config" },
  "vms.config.history": { method: "GET", path: "/api/v1/vms/:name/config/history" },
  "vms.start": { method: "POST", path: "/api/v1/vms/:name/start" },
  "vms.stop": { method: "POST", path: "/api/v1/vms/:name/stop" },
  "vms.restart": { method: "POST", path: "/api/v1/vms/:name/restart" },
  "vms.files.read": { method: "GET", path: "/api/v1/vms/:name/files" },
  "vms.files.write": { method: "PUT", path: "/api/v1/vms/:name/files" },
  "vms.logs": { method: "GET", path: "/api/v1/vms/:name/logs" },
  "vms.openapi": { method: "GET", path: "/api/v1/vms/:name/openapi" },
  "vms.action": { method: "POST", path: "/api/v1/vms/:name/actions/:plugin/:action" },
  "vms.run": { method: "POST", path: "/api/v1/vms/:name/run" },
  "vms.console.tail": { method: "GET", path: "/api/v1/vms/:name/console" },
  "deployments.list": { method: "GET", path: "/api/v1/deployments" },
  "deployments.create": { method: "POST", path: "/api/v1/deployments" },
  "deployments.get": { method: "GET", path: "/api/v1/deployments/:name" },
  "deployments.patch": { method: "PATCH", path: "/api/v1/deployments/:name" },
  "deployments.delete": { method: "DELETE", path: "/api/v1/deployments/:name" },
  "deployments.rollback": { method: "POST", path: "/api/v1/deployments/:name/rollback" },
  "deployments.history": { method: "GET", path: "/api/v1/deployments/:name/history" },
  "plugins.list": { method: "GET", path: "/api/v1/plugins" },
  "plugins.install": { method: "POST", path: "/api/v1/plugins" },
  "plugins.get": { method: "GET", path: "/api/v1/plugins/:plugin" },
  "plugins.manifest": { method: "GET", path: "/api/v1/plugins/:plugin/manifest" },
  "plugins.setEnabled": { method: "POST", path: "/api/v1/plugins/:plugin/enabled" },
  "plugins.artifacts.list": { method: "GET", path: "/api/v1/plugins/:plugin/artifacts" },
  "plugins.artifacts.create": { method: "POST", path: "/api/v1/plugins/:plugin/artifacts" },
  "plugins.artifacts.delete": { method: "DELETE", path: "/api/v1/plugins/:plugin/artifacts" },
  "plugins.artifacts.get": { method: "GET", path: "/api/v1/plugins/:plugin/artifacts/:artifact" },
  "plugins.action": { method: "POST", path: "/api/v1/plugins/:plugin/actions/:action" },
  "plugins.remove": { method: "DELETE", path: "/api/v1/plugins/:plugin" },
  "images.has": { method: "HEAD", path: "/api/v1/images/:checksum" },
  "images.put": { method: "PUT", path: "/api/v1/images/:checksum" },
  "keys.create": { method: "POST", path: "/api/v1/keys" },
  "keys.list": { method: "GET", path: "/api/v1/keys" },
  "keys.revoke": { method: "DELETE", path: "/api/v1/keys/:key" },
  "vfio.info": { method: "POST", path: "/api/v1/vfio/devices/info" },
  "vfio.validate": { method: "POST", path: "/api/v1/vfio/devices/validate" },
  "vfio.groups": { method: "POST", path: "/api/v1/vfio/devices/iommu-groups" },
  "vfio.bind": { method: "POST", path: "/api/v1/vfio/devices/bind" },
  "vfio.unbind": { method: "POST", path: "/api/v1/vfio/devices/unbind" },
  "vfio.paths": { method: "POST", path: "/api/v1/vfio/devices/group-paths" },
  "usage.vms": { method: "GET", path: "/api/v1/usage/vms" },
  "events.list": { method: "GET", path: "/api/v1/events" },
  "events.vms": { method: "GET", path: "/api/v1/events/vms" },
  "mcp.command": { method: "POST", path: "/api/v1/mcp" },
} as const satisfies Record<string, Endpoint>;

/**
 * The proxy into a guest, for any method: what follows is a path of the workload, `healthz` alone is the agent's own, and `v1/` is the
 * workload's root once more, for paths that would read otherwise.
 */
export const AGENT_PATH = "/api/v1/vms/:name/agent";

/**
 * Streams into a guest. The request asks for an upgrade (RFC 9110 section 7.8) to {@link STREAM_PROTOCOL}; after the 101 the connection
 * carries the stream's bytes both ways, each direction ending by itself.
 */
export const STREAM_ENDPOINTS = {
  /** Frames of exec-frames.ts. */
  "vms.exec": { method: "POST", path: "/api/v1/vms/:name/exec" },
  /** Bytes of one TCP connection to `?port=` in the guest. */
  "vms.forward": { method: "POST", path: "/api/v1/vms/:name/forward" },
  /** Bytes of the serial console. */
  "vms.console": { method: "POST", path: "/api/v1/vms/:name/console" },
} as const satisfies Record<string, Endpoint>;

/** Names a stream route. */
export type StreamId = keyof typeof STREAM_ENDPOINTS;

/** What a stream's request asks to upgrade to. */
export const STREAM_PROTOCOL = "volant-stream";

/** WebSockets. */
export const SOCKET_ENDPOINTS = {
  /** Each text message is a `VmLogLine`; `?tail=` as for the route `vms.logs`. */
  "vms.logs.socket": { method: "GET", path: "/ws/v1/vms/:name/logs" },
  /** Messages are bytes of the serial console, both ways. */
  "vms.console.socket": { method: "GET", path: "/ws/v1/vms/:name/console" },
  /** Binary messages are pieces of the bytes that `vms.exec` carries, both ways. */
  "vms.exec.socket": { method: "GET", path: "/ws/v1/vms/:name/exec" },
} as const satisfies Record<string, Endpoint>;

/** Names a WebSocket. */
export type SocketId = keyof typeof SOCKET_ENDPOINTS;
/** Where the Model Context Protocol is served. Its versions are its own, so it is apart from `/api/v1`, where `mcp` is the v1 envelope. */
export const MCP_PATH = "/mcp";
/**
 * Headers that the protocol's clients set on requests: those of its specification of 2025 (Transports), and `Mcp-Method` and `Mcp-Name` of that of 2026. Pages
 * may send them only where the answer to the preflight names them (Fetch Standard, section 3.3.3).
 */
export const MCP_REQUEST_HEADERS = ["Mcp-Protocol-Version", "Mcp-Session-Id", "Mcp-Method", "Mcp-Name"] as const;

/** Whoever sends volantd one message of more bytes than this is cut off. */
export const MAX_SOCKET_MESSAGE_BYTES = 64 * 1024;

/** Subprotocol of the WebSockets (RFC 6455 section 1.9). */
export const SOCKET_PROTOCOL = "volant.v1";

/**
 * A subprotocol that carries the API key as base64url, for browsers, which can't set headers on a WebSocket. It is offered beside
 * {@link SOCKET_PROTOCOL}, which is the one that is agreed on.
 */
export const SOCKET_KEY_PREFIX = "volant.key.";

/** Names a route, and is its OpenAPI `operationId`. */
export type RouteId = keyof typeof ENDPOINTS;

/** Header that carries the API key, beside `Authorization: Bearer`. */
export const API_KEY_HEADER = "X-Volant-API-Key";
/**
 * Header of a request that makes something: it makes it once, however often it is sent with this key and body within 24 hours, and is answered as it was first.
 */
export const IDEMPOTENCY_HEADER = "Idempotency-Key";
/** Header of a list's answer that carries the count before paging. */
export const TOTAL_COUNT_HEADER = "X-Total-Count";

/** Header of an answer that is a workload's own, and not volantd's: the name of its VM. */
export const ANSWERED_BY_HEADER = "X-Volant-Answered-By";

/**
 * The path with its parameters filled in, each percent-encoded.
 *
 * @throws TypeError when a parameter is missing: a bug of the caller
 */
export function fillPath(path: string, params: Readonly<Record<string, string>>): string {
  return path.replaceAll(/:([a-z_]+)/g, (_, name: string) => {
    const value = params[name];
    if (value === undefined) throw new TypeError(`path ${path} needs the parameter ${name}`);
    return encodeURIComponent(value);
  });
}
