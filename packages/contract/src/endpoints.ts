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
  "openapi.root": { method: "GET", path: "/openapi" },
  "openapi.get": { method: "GET", path: "/api/v1/openapi" },
  "system.status": { method: "GET", path: "/api/v1/system/status" },
  "system.info": { method: "GET", path: "/api/v1/system/info" },
  "system.summary": { method: "GET", path: "/api/v1/system/summary" },
  "vms.list": { method: "GET", path: "/api/v1/vms" },
  "vms.create": { method: "POST", path: "/api/v1/vms" },
  "vms.get": { method: "GET", path: "/api/v1/vms/:name" },
  "vms.delete": { method: "DELETE", path: "/api/v1/vms/:name" },
  "vms.start": { method: "POST", path: "/api/v1/vms/:name/start" },
  "vms.stop": { method: "POST", path: "/api/v1/vms/:name/stop" },
  "vms.restart": { method: "POST", path: "/api/v1/vms/:name/restart" },
  "plugins.list": { method: "GET", path: "/api/v1/plugins" },
  "plugins.install": { method: "POST", path: "/api/v1/plugins" },
  "plugins.get": { method: "GET", path: "/api/v1/plugins/:plugin" },
  "plugins.manifest": { method: "GET", path: "/api/v1/plugins/:plugin/manifest" },
  "plugins.setEnabled": { method: "POST", path: "/api/v1/plugins/:plugin/enabled" },
  "plugins.remove": { method: "DELETE", path: "/api/v1/plugins/:plugin" },
  "images.has": { method: "HEAD", path: "/api/v1/images/:checksum" },
  "images.put": { method: "PUT", path: "/api/v1/images/:checksum" },
  "events.vms": { method: "GET", path: "/api/v1/events/vms" },
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
} as const satisfies Record<string, Endpoint>;

/** Names a stream route. */
export type StreamId = keyof typeof STREAM_ENDPOINTS;

/** What a stream's request asks to upgrade to. */
export const STREAM_PROTOCOL = "volant-stream";

/** Names a route, and is its OpenAPI `operationId`. */
export type RouteId = keyof typeof ENDPOINTS;

/** Header that carries the API key, beside `Authorization: Bearer`. */
export const API_KEY_HEADER = "X-Volant-API-Key";
/** Header of a list's answer that carries the count before paging. */
export const TOTAL_COUNT_HEADER = "X-Total-Count";

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
