/**
 * The route table: the one source for the server's registration and validation, the OpenAPI document and the client's types.
 * Method and path come from endpoints.ts.
 */
import { Type, type Static, type TObject, type TSchema } from "typebox";
import { ENDPOINTS, TOTAL_COUNT_HEADER, type Endpoint, type RouteId } from "./endpoints.ts";
import type { ErrorCode } from "./errors.ts";
import { VmEvent } from "./event.ts";
import { Checksum, Manifest } from "./manifest.ts";
import { PluginName, VmName } from "./names.ts";
import { Plugin, PluginList, SetEnabledRequest } from "./plugin.ts";
import { Health, SystemInfo, SystemSummary } from "./system.ts";
import { CreateVmRequest, Vm, VmStatus } from "./vm.ts";

const closed = { additionalProperties: false } as const;

export interface RouteSpec extends Endpoint {
  readonly tag: string;
  /** One line for the reference documents. */
  readonly summary: string;
  readonly params?: TObject;
  /** Query values arrive as text: integers are parsed, and an array may be repeated or separated by commas. */
  readonly query?: TObject;
  /** Request headers that mean something to this route alone. */
  readonly headers?: TObject;
  readonly body?: TSchema;
  /** The body is a file, sent as application/octet-stream. */
  readonly upload?: true;
  /** Status of the good answer. */
  readonly status: 200 | 201 | 204;
  /** Absent where the good answer has no JSON body. */
  readonly response?: TSchema;
  /** The answer is a stream of server-sent events whose data fits this schema. */
  readonly events?: TSchema;
  readonly responseHeaders?: Readonly<Record<string, TSchema>>;
  /** Codes that this route's own work answers with, beside the ones every route may (COMMON_ERRORS). */
  readonly errors: readonly ErrorCode[];
  /** Answered without an API key. */
  readonly open?: true;
}

/** Codes that any route may answer with. */
export const COMMON_ERRORS: readonly ErrorCode[] = [
  "invalid",
  "unauthorized",
  "forbidden",
  "too_large",
  "timeout",
  "internal",
  "not_ready",
];

export const VmListQuery = Type.Object(
  {
    status: Type.Optional(Type.Array(VmStatus, { maxItems: 16 })),
    runtime: Type.Optional(Type.String({ maxLength: 63 })),
    plugin: Type.Optional(Type.String({ maxLength: 63 })),
    q: Type.Optional(Type.String({ maxLength: 63, description: "Part of the name, case-insensitive" })),
    limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000 })),
    offset: Type.Optional(Type.Integer({ minimum: 0, maximum: 2_147_483_647 })),
    sort: Type.Optional(
      Type.Union([
        Type.Literal("name"),
        Type.Literal("status"),
        Type.Literal("runtime"),
        Type.Literal("created_at"),
        Type.Literal("updated_at"),
      ]),
    ),
    order: Type.Optional(Type.Union([Type.Literal("asc"), Type.Literal("desc")])),
  },
  closed,
);
export type VmListQuery = Static<typeof VmListQuery>;

const OpenApi = Type.Object(
  { openapi: Type.String(), info: Type.Unknown(), paths: Type.Record(Type.String(), Type.Unknown()) },
  { additionalProperties: true },
);

const vmParams = Type.Object({ name: VmName }, closed);
const pluginParams = Type.Object({ plugin: PluginName }, closed);
const imageParams = Type.Object({ checksum: Checksum }, closed);

const vmAnswer = { tag: "vms", params: vmParams, response: Vm, status: 200 } as const;
const pluginAnswer = { tag: "plugins", params: pluginParams, response: Plugin, status: 200 } as const;

export const ROUTES = {
  "health.get": {
    ...ENDPOINTS["health.get"],
    tag: "system",
    summary: "Whether volantd answers",
    status: 200,
    response: Health,
    errors: [],
    open: true,
  },
  "openapi.root": {
    ...ENDPOINTS["openapi.root"],
    tag: "system",
    summary: "This document",
    status: 200,
    response: OpenApi,
    errors: [],
  },
  "openapi.get": {
    ...ENDPOINTS["openapi.get"],
    tag: "system",
    summary: "This document",
    status: 200,
    response: OpenApi,
    errors: [],
  },
  "system.status": {
    ...ENDPOINTS["system.status"],
    tag: "system",
    summary: "Whether volantd answers and accepts this key",
    status: 200,
    response: Health,
    errors: [],
  },
  "system.info": {
    ...ENDPOINTS["system.info"],
    tag: "system",
    summary: "Version, addresses, network and hypervisor of this host",
    status: 200,
    response: SystemInfo,
    errors: [],
  },
  "system.summary": {
    ...ENDPOINTS["system.summary"],
    tag: "system",
    summary: "How many VMs and plugins there are, by kind",
    status: 200,
    response: SystemSummary,
    errors: [],
  },
  "vms.list": {
    ...ENDPOINTS["vms.list"],
    tag: "vms",
    summary: "List VMs",
    query: VmListQuery,
    status: 200,
    response: Type.Array(Vm),
    responseHeaders: { [TOTAL_COUNT_HEADER]: Type.Integer({ description: "Count before paging" }) },
    errors: [],
  },
  "vms.create": {
    ...ENDPOINTS["vms.create"],
    tag: "vms",
    summary: "Create a VM: answered once the intent is durable",
    body: CreateVmRequest,
    status: 201,
    response: Vm,
    errors: ["exists", "not_found", "disabled", "exhausted", "not_ready", "not_supported"],
  },
  "vms.get": { ...ENDPOINTS["vms.get"], ...vmAnswer, summary: "Show a VM", errors: ["not_found"] },
  "vms.delete": {
    ...ENDPOINTS["vms.delete"],
    tag: "vms",
    summary: "Delete a VM: answered when its process, tap, rules and lease are gone",
    params: vmParams,
    status: 204,
    errors: ["not_found"],
  },
  "vms.start": {
    ...ENDPOINTS["vms.start"],
    ...vmAnswer,
    summary: "Start a VM: answered once the intent is durable",
    errors: ["not_found", "wrong_state", "disabled", "exhausted"],
  },
  "vms.stop": {
    ...ENDPOINTS["vms.stop"],
    ...vmAnswer,
    summary: "Stop a VM: answered when it is stopped, at once if it was",
    errors: ["not_found", "wrong_state"],
  },
  "vms.restart": {
    ...ENDPOINTS["vms.restart"],
    ...vmAnswer,
    summary: "Restart a VM: answered once the intent is durable",
    errors: ["not_found", "wrong_state", "disabled", "exhausted"],
  },
  "plugins.list": {
    ...ENDPOINTS["plugins.list"],
    tag: "plugins",
    summary: "List the names of the installed plugins",
    status: 200,
    response: PluginList,
    errors: [],
  },
  "plugins.install": {
    ...ENDPOINTS["plugins.install"],
    tag: "plugins",
    summary: "Install a plugin from its manifest; its files must be here already, by checksum",
    body: Manifest,
    status: 201,
    response: Plugin,
    errors: ["exists", "checksum_mismatch", "not_supported", "not_found"],
  },
  "plugins.get": { ...ENDPOINTS["plugins.get"], ...pluginAnswer, summary: "Show a plugin", errors: ["not_found"] },
  "plugins.manifest": {
    ...ENDPOINTS["plugins.manifest"],
    ...pluginAnswer,
    summary: "The manifest of an enabled plugin",
    response: Manifest,
    errors: ["not_found", "disabled"],
  },
  "plugins.setEnabled": {
    ...ENDPOINTS["plugins.setEnabled"],
    ...pluginAnswer,
    summary: "Enable or disable a plugin; VMs made from it go on",
    body: SetEnabledRequest,
    errors: ["not_found"],
  },
  "plugins.remove": {
    ...ENDPOINTS["plugins.remove"],
    tag: "plugins",
    summary: "Remove a plugin that no VM needs",
    params: pluginParams,
    status: 204,
    errors: ["not_found", "in_use"],
  },
  "images.has": {
    ...ENDPOINTS["images.has"],
    tag: "images",
    summary: "Whether the file with this checksum is here",
    params: imageParams,
    status: 200,
    errors: ["not_found"],
  },
  "images.put": {
    ...ENDPOINTS["images.put"],
    tag: "images",
    summary: "Hand a file over: it is kept under its checksum, which is verified",
    params: imageParams,
    upload: true,
    status: 204,
    errors: ["checksum_mismatch", "exhausted"],
  },
  "events.vms": {
    ...ENDPOINTS["events.vms"],
    tag: "events",
    summary: "What happens to VMs, as server-sent events: remembered ones after Last-Event-ID, then live ones",
    headers: Type.Object({
      "Last-Event-ID": Type.Optional(
        Type.String({ pattern: "^[0-9]{1,15}$", description: "Id of the last event received" }),
      ),
    }),
    status: 200,
    events: VmEvent,
    errors: [],
  },
} as const satisfies Record<RouteId, RouteSpec>;

type RouteOf<Id extends RouteId> = (typeof ROUTES)[Id];
type StaticPart<Route, Key extends string> =
  Route extends Readonly<Record<Key, infer S extends TSchema>> ? Static<S> : undefined;

/** Path parameters of a route, or undefined where it has none. */
export type RouteParams<Id extends RouteId> = StaticPart<RouteOf<Id>, "params">;
/** Query of a route, or undefined where it takes none. */
export type RouteQuery<Id extends RouteId> = StaticPart<RouteOf<Id>, "query">;
/** JSON request body of a route, or undefined where it takes none. */
export type RouteBody<Id extends RouteId> = StaticPart<RouteOf<Id>, "body">;
/** JSON body of a route's good answer, or undefined where it has none. */
export type RouteResponse<Id extends RouteId> = StaticPart<RouteOf<Id>, "response">;

/** The same table without the literal types, for code that walks it. */
export const ROUTE_SPECS: Readonly<Record<RouteId, RouteSpec>> = ROUTES;

/** Every route id, in the table's order. */
export const ROUTE_IDS = Object.keys(ROUTES) as readonly RouteId[];
