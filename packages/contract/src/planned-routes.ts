/**
 * Routes of the v1 contract that this version does not honour yet. They answer 501 `not_supported`, so that a program can tell
 * "not yet" from "no such thing". A route moves from here to endpoints.ts and routes.ts when it works.
 */
export interface PlannedRoute {
  readonly methods: readonly string[];
  readonly path: string;
  /** What it will do, as the subject of the sentence "… is not supported by this version". */
  readonly what: string;
}

export const PLANNED_ROUTES: readonly PlannedRoute[] = [
  { methods: ["GET", "PATCH"], path: "/api/v1/vms/:name/config", what: "a VM's configuration as a resource" },
  { methods: ["GET"], path: "/api/v1/vms/:name/config/history", what: "a VM's configuration history" },
  { methods: ["GET"], path: "/api/v1/vms/:name/openapi", what: "a workload's OpenAPI document" },
  { methods: ["POST"], path: "/api/v1/vms/:name/actions/:plugin/:action", what: "calling a plugin's action on a VM" },
  { methods: ["GET", "POST"], path: "/api/v1/deployments", what: "deployments" },
  { methods: ["GET", "PATCH", "DELETE"], path: "/api/v1/deployments/:name", what: "deployments" },
  { methods: ["POST"], path: "/api/v1/plugins/:plugin/actions/:action", what: "calling a plugin's action" },
  { methods: ["GET", "POST", "DELETE"], path: "/api/v1/plugins/:plugin/artifacts", what: "plugin artifacts" },
  { methods: ["GET"], path: "/api/v1/plugins/:plugin/artifacts/:artifact", what: "plugin artifacts" },
  { methods: ["GET"], path: "/ws/v1/vms/:name/console", what: "the console over WebSocket" },
  { methods: ["GET"], path: "/ws/v1/vms/:name/logs", what: "logs over WebSocket" },
  { methods: ["POST"], path: "/api/v1/mcp", what: "the MCP endpoint" },
  ...["info", "validate", "iommu-groups", "bind", "unbind", "group-paths"].map((verb) => ({
    methods: ["POST"],
    path: `/api/v1/vfio/devices/${verb}`,
    what: "PCI passthrough",
  })),
];
