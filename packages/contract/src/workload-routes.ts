/** Routes that ask a VM's workload: what it says of itself, and the actions of its plugin. A part of the route table. */
import { Type } from "typebox";
import { ANSWERED_BY_HEADER, ENDPOINTS } from "./endpoints.ts";
import type { ErrorCode } from "./errors.ts";
import { PluginName, VmName } from "./names.ts";
import { OpenApiDocument } from "./system.ts";

const closed = { additionalProperties: false } as const;

const ActionName = Type.String({ minLength: 1, maxLength: 255, description: "As the plugin's manifest names it" });

/** Given to the workload as JSON, or as the query where the action's method is GET, HEAD or DELETE. */
const ActionInput = Type.Unknown({ description: "What the action is given; may be absent" });

const reachErrors: readonly ErrorCode[] = ["not_found", "wrong_state", "guest_unreachable", "exhausted"];

const action = {
  tag: "workloads",
  body: ActionInput,
  bodyIsOptional: true,
  status: 200,
  workloadAnswer: true,
  responseHeaders: { [ANSWERED_BY_HEADER]: VmName },
} as const;

export const WORKLOAD_ROUTES = {
  "vms.openapi": {
    ...ENDPOINTS["vms.openapi"],
    tag: "workloads",
    summary: "The OpenAPI document of a VM's workload: as the workload serves it, else as its manifest holds it",
    params: Type.Object({ name: VmName }, closed),
    status: 200,
    response: OpenApiDocument,
    errors: reachErrors,
  },
  "vms.action": {
    ...ENDPOINTS["vms.action"],
    ...action,
    summary: "Call an action of a plugin on a VM that runs it",
    params: Type.Object({ name: VmName, plugin: PluginName, action: ActionName }, closed),
    errors: reachErrors,
  },
  "plugins.action": {
    ...ENDPOINTS["plugins.action"],
    ...action,
    summary: "Call an action of a plugin on one of its running VMs: the first by name, or the one that is named",
    params: Type.Object({ plugin: PluginName, action: ActionName }, closed),
    query: Type.Object({ vm: Type.Optional(VmName) }, closed),
    errors: [...reachErrors, "disabled"],
  },
} as const;
