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
