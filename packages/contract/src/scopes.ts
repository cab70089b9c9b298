/**
 * What an API key may do, and what each route asks for: the one source for the server's gate and the OpenAPI document. A route that is missing here does
 * not compile; one that the server finds no scope for asks for `admin`.
 */
import type { RouteId, SOCKET_ENDPOINTS, StreamId } from "./endpoints.ts";

/** Each scope includes those before it. */
export const SCOPES = ["read", "operate", "admin"] as const;
export type Scope = (typeof SCOPES)[number];

/** What each scope is for, for the reference documents. */
export const SCOPE_MEANINGS = {
  read: "Sees everything that volantd tells of VMs, deployments and plugins, their configurations included; changes nothing",
  operate: "Makes, changes and deletes VMs and deployments, and reaches into guests",
  admin: "Installs plugins, takes devices from the host, makes backups, and manages keys",
} as const satisfies Record<Scope, string>;

/** Names of routes that are apart from the route table. */
type ApartId = StreamId | keyof typeof SOCKET_ENDPOINTS | "vms.agent" | "mcp.protocol";

export const ROUTE_SCOPES = {
  "health.get": "read",
  "ready.get": "read",
  "metrics.get": "read",
  "openapi.root": "read",
  "openapi.get": "read",
  "system.status": "read",
  "system.info": "read",
  "system.summary": "read",
  // Whoever has the database has all that it holds.
  "system.backup": "admin",
  "vms.list": "read",
  "vms.create": "operate",
  "vms.get": "read",
  "vms.delete": "operate",
  "vms.config.get": "read",
  "vms.config.patch": "operate",
  "vms.config.history": "read",
  "vms.start": "operate",
  "vms.stop": "operate",
  "vms.restart": "operate",
  // A guest's files are the guest's, and not what volantd tells of it.
  "vms.files.read": "operate",
  "vms.files.write": "operate",
  "vms.logs": "read",
  "vms.logs.socket": "read",
  "vms.openapi": "read",
  "vms.action": "operate",
  "vms.run": "operate",
  "vms.console.tail": "read",
  "vms.exec": "operate",
  "vms.exec.socket": "operate",
  "vms.console": "operate",
  "vms.console.socket": "operate",
  "vms.forward": "operate",
  // Any method: what a GET does in a workload is the workload's business.
  "vms.agent": "operate",
  "deployments.list": "read",
  "deployments.create": "operate",
  "deployments.get": "read",
  "deployments.patch": "operate",
  "deployments.delete": "operate",
  "deployments.rollback": "operate",
  "deployments.history": "read",
  "plugins.list": "read",
  "plugins.install": "admin",
  "plugins.get": "read",
  "plugins.manifest": "read",
  "plugins.setEnabled": "admin",
  "plugins.remove": "admin",
  "plugins.artifacts.list": "read",
  "plugins.artifacts.create": "admin",
  "plugins.artifacts.delete": "admin",
  "plugins.artifacts.get": "read",
  "plugins.action": "operate",
  "images.has": "read",
  "images.put": "admin",
  "keys.create": "admin",
  "keys.list": "admin",
  "keys.revoke": "admin",
  "vfio.info": "read",
  "vfio.validate": "read",
  "vfio.groups": "read",
  "vfio.paths": "read",
  // They take a device from the host's drivers, and give it back.
  "vfio.bind": "admin",
  "vfio.unbind": "admin",
  "usage.vms": "read",
  "events.list": "read",
  "events.vms": "read",
  // It only asks other routes, which ask for their own.
  "mcp.command": "read",
  "mcp.protocol": "read",
} as const satisfies Record<RouteId | ApartId, Scope>;

/** Whether a key with the scope `held` may do what asks for `needed`. */
export function scopeAllows(held: Scope, needed: Scope): boolean {
  return SCOPES.indexOf(held) >= SCOPES.indexOf(needed);
}
