/**
 * The route table: the one source for the server's registration and validation, the OpenAPI document and the client's types.
 * Method and path come from endpoints.ts.
 */
import { Type, type Static, type TObject, type TSchema } from "typebox";
import { ARTIFACT_ROUTES } from "./artifact-routes.ts";
import { ENDPOINTS, IDEMPOTENCY_HEADER, TOTAL_COUNT_HEADER, type Endpoint, type RouteId } from "./endpoints.ts";
import {
  CreateDeploymentRequest,
  Deployment,
  DeploymentHistoryQuery,
  DeploymentPatch,
  DeploymentVersion,
  RollbackRequest,
} from "./deployment.ts";
import { ApiKey, ApiKeyName, CreateApiKeyRequest, CreatedApiKey } from "./api-key.ts";
import type { ErrorCode } from "./errors.ts";
import { EVENT_ID_PATTERN, EventListQuery, NumberedVmEvent, VmEvent, VmEventsQuery } from "./event.ts";
import { FilesWritten, ReadFilesQuery, WriteFilesQuery } from "./files.ts";
import { LOG_CURSOR_PATTERN, VmLogLine, VmLogQuery } from "./logs.ts";
import { Checksum, Manifest } from "./manifest.ts";
import { DeploymentName, PluginName, VmName } from "./names.ts";
import { Plugin, PluginList, SetEnabledRequest } from "./plugin.ts";
import { Health, METRICS_TYPE, OpenApiDocument, SystemInfo, SystemSummary } from "./system.ts";
import { VmUsageReading } from "./usage.ts";
import { TOOL_ROUTES } from "./tool-routes.ts";
import { CreateVmRequest, Vm, VmStatus } from "./vm.ts";
import { ConfigHistoryQuery, VmConfigPatch, VmConfigState, VmConfigVersion } from "./vm-config.ts";
import { VFIO_ROUTES } from "./vfio-routes.ts";
import { WaitQuery } from "./wait.ts";
import { WORKLOAD_ROUTES } from "./workload-routes.ts";

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
  /** The body may be absent. */
  readonly bodyIsOptional?: true;
  /** The body is a file, sent as application/octet-stream or as one of `uploadTypes`. */
  readonly upload?: true;
  readonly uploadTypes?: readonly string[];
  /** The good answer is a file of this media type. */
  readonly download?: string;
  /** Status of the good answer. */
  readonly status: 200 | 201 | 204;
  /** Absent where the good answer has no JSON body. */
  readonly response?: TSchema;
  /** Body of a 202: the request waited, as its `wait` said, and the outcome is still to come. */
  readonly accepted?: TSchema;
  /** The answer is a stream of server-sent events whose data fits this schema. */
  readonly events?: TSchema;
  readonly responseHeaders?: Readonly<Record<string, TSchema>>;
  /** The good answer is a workload's own: its status, type and body. The header X-Volant-Answered-By tells it from a refusal of volantd's. */
  readonly workloadAnswer?: true;
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
  "rate_limited",
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

/** A SQLite database (IANA's registry of media types). */
export const BACKUP_TYPE = "application/vnd.sqlite3";

/** IANA has no type for tar; this is the one in use. */
export const ARCHIVE_TYPE = "application/x-tar";

const vmParams = Type.Object({ name: VmName }, closed);
const pluginParams = Type.Object({ plugin: PluginName }, closed);
const deploymentParams = Type.Object({ name: DeploymentName }, closed);
const keyParams = Type.Object({ key: ApiKeyName }, closed);
const imageParams = Type.Object({ checksum: Checksum }, closed);

/** Of a route that makes something. */
const keyHeaders = Type.Object({
  [IDEMPOTENCY_HEADER]: Type.Optional(
    Type.String({
      pattern: "^[!-~]{1,255}$",
      description:
        "A repetition with this key and the same body, within 24 hours, makes nothing and is answered as the first was; with another body it is refused",
    }),
  ),
});
const waits = { query: WaitQuery, accepted: Vm } as const;
const waitsForRollout = { query: WaitQuery, accepted: Deployment } as const;

const vmAnswer = { tag: "vms", params: vmParams, response: Vm, status: 200 } as const;
const deploymentAnswer = {
  tag: "deployments",
  params: deploymentParams,
  response: Deployment,
  status: 200,
} as const;
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
  "ready.get": {
    ...ENDPOINTS["ready.get"],
    tag: "system",
    summary: "Whether volantd can do its work: it sees its host, and its database takes what is written",
    status: 200,
    response: Health,
    errors: [],
    open: true,
  },
  "metrics.get": {
    ...ENDPOINTS["metrics.get"],
    tag: "system",
    summary:
      "What Prometheus reads: VMs by status, addresses, requests, steps and starts of VMs, frames kept from leaving, the process",
    download: METRICS_TYPE,
    status: 200,
    errors: [],
  },
  "openapi.root": {
    ...ENDPOINTS["openapi.root"],
    tag: "system",
    summary: "This document",
    status: 200,
    response: OpenApiDocument,
    errors: [],
  },
  "openapi.get": {
    ...ENDPOINTS["openapi.get"],
    tag: "system",
    summary: "This document",
    status: 200,
    response: OpenApiDocument,
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
  "system.backup": {
    ...ENDPOINTS["system.backup"],
    tag: "system",
    summary: "Everything that volantd remembers, as one SQLite database; for volar restore. It may hold secrets of VMs",
    download: BACKUP_TYPE,
    status: 200,
    errors: ["in_use"],
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
    summary: "Create a VM: answered once the intent is durable; with ?wait once it runs, or has ended",
    headers: keyHeaders,
    ...waits,
    body: CreateVmRequest,
    status: 201,
    response: Vm,
    errors: [
      "key_reused",
      "wrong_state",
      "exists",
      "in_use",
      "not_found",
      "disabled",
      "exhausted",
      "not_ready",
      "not_supported",
    ],
  },
  "vms.get": { ...ENDPOINTS["vms.get"], ...vmAnswer, summary: "Show a VM", errors: ["not_found"] },
  "vms.delete": {
    ...ENDPOINTS["vms.delete"],
    tag: "vms",
    summary: "Delete a VM: answered when its process, tap, rules and lease are gone",
    params: vmParams,
    ...waits,
    status: 204,
    errors: ["not_found"],
  },
  "vms.config.get": {
    ...ENDPOINTS["vms.config.get"],
    tag: "vms",
    summary: "A VM's configuration as last written",
    params: vmParams,
    status: 200,
    response: VmConfigState,
    errors: ["not_found"],
  },
  "vms.config.patch": {
    ...ENDPOINTS["vms.config.patch"],
    tag: "vms",
    summary:
      "Change a VM's configuration: in force from its next start, published ports at once. Every write is a new version",
    params: vmParams,
    query: WaitQuery,
    accepted: VmConfigState,
    body: VmConfigPatch,
    status: 200,
    response: VmConfigState,
    errors: ["not_found", "wrong_state", "exists", "in_use", "exhausted", "disabled", "not_ready", "not_supported"],
  },
  "vms.config.history": {
    ...ENDPOINTS["vms.config.history"],
    tag: "vms",
    summary: "Versions of a VM's configuration, newest first",
    params: vmParams,
    query: ConfigHistoryQuery,
    status: 200,
    response: Type.Array(VmConfigVersion),
    errors: ["not_found"],
  },
  "vms.start": {
    ...ENDPOINTS["vms.start"],
    ...vmAnswer,
    ...waits,
    summary: "Start a VM: answered once the intent is durable; with ?wait once it runs, or has ended",
    errors: ["not_found", "wrong_state", "exists", "disabled", "exhausted"],
  },
  "vms.stop": {
    ...ENDPOINTS["vms.stop"],
    ...vmAnswer,
    ...waits,
    summary: "Stop a VM: answered when it is stopped, at once if it was",
    errors: ["not_found", "wrong_state"],
  },
  "vms.restart": {
    ...ENDPOINTS["vms.restart"],
    ...vmAnswer,
    ...waits,
    summary: "Restart a VM: answered once the intent is durable; with ?wait once it runs, or has ended",
    errors: ["not_found", "wrong_state", "exists", "disabled", "exhausted"],
  },
  "vms.files.read": {
    ...ENDPOINTS["vms.files.read"],
    tag: "vms",
    summary: "Copy a file or a directory out of a guest, as a tar archive with one entry at its top",
    params: vmParams,
    query: ReadFilesQuery,
    download: ARCHIVE_TYPE,
    status: 200,
    errors: ["not_found", "wrong_state", "guest_unreachable", "exhausted"],
  },
  "vms.files.write": {
    ...ENDPOINTS["vms.files.write"],
    tag: "vms",
    summary:
      "Copy into a guest: the files of a tar archive into the directory `path`, or its one entry as `path`; or one file's bytes as `path`",
    params: vmParams,
    query: WriteFilesQuery,
    upload: true,
    uploadTypes: [ARCHIVE_TYPE, "application/octet-stream"],
    status: 200,
    response: FilesWritten,
    errors: ["not_found", "wrong_state", "guest_unreachable", "exhausted"],
  },
  "vms.logs": {
    ...ENDPOINTS["vms.logs"],
    tag: "vms",
    summary:
      "What a VM's workload has printed, as server-sent events: stored lines, those after Last-Event-ID where it is given",
    params: vmParams,
    query: VmLogQuery,
    headers: Type.Object({
      "Last-Event-ID": Type.Optional(
        Type.String({ pattern: LOG_CURSOR_PATTERN, description: "Id of the last line received" }),
      ),
    }),
    status: 200,
    events: VmLogLine,
    errors: ["not_found"],
  },
  ...WORKLOAD_ROUTES,
  "deployments.list": {
    ...ENDPOINTS["deployments.list"],
    tag: "deployments",
    summary: "List deployments, by name",
    status: 200,
    response: Type.Array(Deployment),
    errors: [],
  },
  "deployments.create": {
    ...ENDPOINTS["deployments.create"],
    tag: "deployments",
    ...waitsForRollout,
    summary:
      "Create a deployment: answered once the intent is durable, its replicas follow; with ?wait once all are ready, or the roll-out goes no further",
    headers: keyHeaders,
    body: CreateDeploymentRequest,
    status: 201,
    response: Deployment,
    errors: ["exists", "in_use", "not_found", "disabled", "not_ready", "not_supported", "key_reused"],
  },
  "deployments.get": {
    ...ENDPOINTS["deployments.get"],
    ...deploymentAnswer,
    summary: "Show a deployment and how far its roll-out is",
    errors: ["not_found"],
  },
  "deployments.patch": {
    ...ENDPOINTS["deployments.patch"],
    ...deploymentAnswer,
    ...waitsForRollout,
    summary:
      "Scale a deployment, or change its configuration, which is then rolled out; `paused: false` also goes on after a failure; with ?wait as a creation waits",
    body: DeploymentPatch,
    errors: ["not_found", "exists", "in_use", "wrong_state", "disabled", "not_ready", "not_supported"],
  },
  "deployments.delete": {
    ...ENDPOINTS["deployments.delete"],
    tag: "deployments",
    ...waitsForRollout,
    summary: "Delete a deployment: answered when nothing is left of any of its replicas",
    params: deploymentParams,
    status: 204,
    errors: ["not_found"],
  },
  "deployments.rollback": {
    ...ENDPOINTS["deployments.rollback"],
    ...deploymentAnswer,
    ...waitsForRollout,
    summary: "Want an earlier (or later) version of the configuration again: it is rolled out as a change is",
    body: RollbackRequest,
    errors: ["not_found", "wrong_state", "in_use"],
  },
  "deployments.history": {
    ...ENDPOINTS["deployments.history"],
    tag: "deployments",
    summary: "Versions of a deployment's configuration, newest first",
    params: deploymentParams,
    query: DeploymentHistoryQuery,
    status: 200,
    response: Type.Array(DeploymentVersion),
    errors: ["not_found"],
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
    headers: keyHeaders,
    body: Manifest,
    status: 201,
    response: Plugin,
    errors: ["exists", "key_reused", "checksum_mismatch", "not_supported", "not_found"],
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
  ...ARTIFACT_ROUTES,
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
  "keys.create": {
    ...ENDPOINTS["keys.create"],
    tag: "keys",
    summary: "Make an API key: the answer is the only one that has it. From the first one on, TCP clients need a key",
    body: CreateApiKeyRequest,
    status: 201,
    response: CreatedApiKey,
    errors: ["exists", "exhausted"],
  },
  "keys.list": {
    ...ENDPOINTS["keys.list"],
    tag: "keys",
    summary: "List API keys, by name, without their secrets",
    status: 200,
    response: Type.Array(ApiKey),
    errors: [],
  },
  "keys.revoke": {
    ...ENDPOINTS["keys.revoke"],
    tag: "keys",
    summary: "Revoke an API key: no request is admitted with it any more, and its connections are closed",
    params: keyParams,
    status: 204,
    errors: ["not_found"],
  },
  ...VFIO_ROUTES,
  "usage.vms": {
    ...ENDPOINTS["usage.vms"],
    tag: "vms",
    summary:
      "What VMs use of the host now: processor time, memory and what went over their taps, of those that have a hypervisor",
    status: 200,
    response: VmUsageReading,
    errors: ["exhausted"],
  },
  "events.list": {
    ...ENDPOINTS["events.list"],
    tag: "events",
    summary: "What happened to VMs, the newest first, as far as it is kept; lines of logs are not",
    query: EventListQuery,
    status: 200,
    response: Type.Array(NumberedVmEvent),
    errors: [],
  },
  "events.vms": {
    ...ENDPOINTS["events.vms"],
    tag: "events",
    summary:
      "What happens to VMs, as server-sent events: kept ones after Last-Event-ID, `after` or `since`, then live ones",
    query: VmEventsQuery,
    headers: Type.Object({
      "Last-Event-ID": Type.Optional(
        Type.String({ pattern: EVENT_ID_PATTERN, description: "Id of the last event received" }),
      ),
    }),
    status: 200,
    events: VmEvent,
    errors: [],
  },
  ...TOOL_ROUTES,
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
/** JSON body of a route's 202, or undefined where there is none. */
export type RouteAccepted<Id extends RouteId> = StaticPart<RouteOf<Id>, "accepted">;
/** JSON body of a route's good answer, or undefined where it has none. */
export type RouteResponse<Id extends RouteId> = StaticPart<RouteOf<Id>, "response">;

/** The same table without the literal types, for code that walks it. */
export const ROUTE_SPECS: Readonly<Record<RouteId, RouteSpec>> = ROUTES;

/** Every route id, in the table's order. */
export const ROUTE_IDS = Object.keys(ROUTES) as readonly RouteId[];
