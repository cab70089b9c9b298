/** The OpenAPI 3.1.1 document of the route table: pure, so that server, tests and release make the same one. */
import type { TObject, TSchema } from "typebox";
import { CreateArtifactRequest, PluginArtifact } from "./artifact.ts";
import { VOLANT_VERSION } from "./defaults.ts";
import { ApiKey, CreateApiKeyRequest } from "./api-key.ts";
import { CreateDeploymentRequest, Deployment, DeploymentVersion } from "./deployment.ts";
import { API_KEY_HEADER, type RouteId } from "./endpoints.ts";
import { ERROR_CODES, type ErrorCode } from "./errors.ts";
import { VmEvent } from "./event.ts";
import { Manifest, Network } from "./manifest.ts";
import { Plugin } from "./plugin.ts";
import { COMMON_ERRORS, ROUTE_IDS, ROUTE_SPECS, type RouteSpec } from "./routes.ts";
import { ErrorBody, SystemInfo, SystemSummary } from "./system.ts";
import { FilesWritten } from "./files.ts";
import { VmLogLine } from "./logs.ts";
import { ROUTE_SCOPES, SCOPE_MEANINGS, type Scope } from "./scopes.ts";
import { STREAM_ROUTES, type StreamRoute } from "./stream-routes.ts";
import { VfioDevice, VfioVerdict } from "./vfio.ts";
import { CreateVmRequest, Vm, VmConfig } from "./vm.ts";

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
type JsonObject = { readonly [key: string]: Json };

/** Schemas that get a name of their own; wherever one occurs whole, the document refers to it. */
const COMPONENTS = {
  Vm,
  VmEvent,
  VmLogLine,
  FilesWritten,
  VmConfig,
  CreateVmRequest,
  Manifest,
  Network,
  Deployment,
  CreateDeploymentRequest,
  DeploymentVersion,
  Plugin,
  ApiKey,
  CreateApiKeyRequest,
  PluginArtifact,
  CreateArtifactRequest,
  SystemInfo,
  SystemSummary,
  VfioDevice,
  VfioVerdict,
  Error: ErrorBody,
} as const;

const componentByText = new Map(
  Object.entries(COMPONENTS).map(([name, schema]) => [JSON.stringify(schema), name] as const),
);

function withReferences(value: Json, except?: string): Json {
  if (Array.isArray(value)) return value.map((item: Json) => withReferences(item));
  if (value === null || typeof value !== "object") return value;
  const name = componentByText.get(JSON.stringify(value));
  if (name !== undefined && name !== except) return { $ref: `#/components/schemas/${name}` };
  return Object.fromEntries(Object.entries(value as JsonObject).map(([key, item]) => [key, withReferences(item)]));
}

function schemaJson(schema: TSchema, except?: string): Json {
  return withReferences(JSON.parse(JSON.stringify(schema)) as Json, except);
}

function parameters(where: "path" | "query" | "header", schema: TObject | undefined): Json[] {
  if (schema === undefined) return [];
  const required = new Set<string>((schema as { required?: string[] }).required ?? []);
  return Object.entries(schema.properties as Record<string, TSchema>).map(([name, property]) => {
    const description = (property as { description?: string }).description;
    return {
      name,
      in: where,
      required: required.has(name),
      ...(description === undefined ? {} : { description }),
      schema: schemaJson(property),
    };
  });
}

function errorResponses(route: Pick<RouteSpec, "errors" | "open"> & { readonly method: string }): JsonObject {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of new Set([...COMMON_ERRORS, ...route.errors])) {
    if (route.open === true && code === "unauthorized") continue;
    const { status } = ERROR_CODES[code];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  // RFC 9110 section 9.3.2: an answer to HEAD has no content.
  const content = { content: { "application/json": { schema: schemaJson(ErrorBody) } } };
  return Object.fromEntries(
    [...byStatus].map(([status, codes]) => [
      String(status),
      {
        description: codes.map((code) => `${code}: ${ERROR_CODES[code].meaning}`).join(" "),
        ...(route.method === "HEAD" ? {} : content),
      },
    ]),
  );
}

function goodContent(route: RouteSpec): JsonObject {
  if (route.workloadAnswer === true) return { content: { "*/*": {} } };
  if (route.response !== undefined) {
    return { content: { "application/json": { schema: schemaJson(route.response) } } };
  }
  if (route.events !== undefined) {
    // 3.1 has no word for the type of a stream's items: the extension says what each event's data is.
    return {
      content: { "text/event-stream": { schema: { type: "string" }, "x-event-data": schemaJson(route.events) } },
    };
  }
  // A file is bytes: 3.1 describes it by its media type alone.
  if (route.download !== undefined) return { content: { [route.download]: {} } };
  return {};
}

function requestBody(route: RouteSpec): JsonObject {
  if (route.upload === true) {
    const types = route.uploadTypes ?? ["application/octet-stream"];
    return { requestBody: { required: true, content: Object.fromEntries(types.map((type) => [type, {}])) } };
  }
  if (route.body === undefined) return {};
  return {
    requestBody: {
      required: route.bodyIsOptional !== true,
      content: { "application/json": { schema: schemaJson(route.body) } },
    },
  };
}

/** Either header, with the scope that its key needs; the empty alternative: a volantd without keys, and the Unix socket, ask for none. */
function security(scope: Scope): JsonObject {
  return { security: [{ apiKey: [scope] }, { bearer: [scope] }, {}] };
}

function operation(id: RouteId, route: RouteSpec): JsonObject {
  const all = [
    ...parameters("path", route.params),
    ...parameters("query", route.query),
    ...parameters("header", route.headers),
  ];
  const headers = Object.entries(route.responseHeaders ?? {}).map(([name, schema]) => [
    name,
    { schema: schemaJson(schema) },
  ]);
  return {
    operationId: id,
    tags: [route.tag],
    summary: route.summary,
    ...(route.open === true ? { security: [] } : security(ROUTE_SCOPES[id])),
    ...(all.length === 0 ? {} : { parameters: all }),
    ...requestBody(route),
    responses: {
      [String(route.status)]: {
        description: route.status === 204 ? "Done" : route.summary,
        ...(headers.length === 0 ? {} : { headers: Object.fromEntries(headers) as JsonObject }),
        ...goodContent(route),
      },
      ...(route.workloadAnswer === true ? { default: { description: "What else the workload answers" } } : {}),
      ...(route.accepted === undefined
        ? {}
        : {
            "202": {
              description: "What was asked for goes on; it was not done when the time of ?wait was up",
              content: { "application/json": { schema: schemaJson(route.accepted) } },
            },
          }),
      ...errorResponses(route),
    },
  };
}

/** OpenAPI has no words for an upgrade: the good answer is a 101, and the description says what follows. */
function streamOperation(route: StreamRoute): JsonObject {
  const { upgrade } = route;
  const good: JsonObject =
    upgrade === undefined
      ? { default: { description: route.answer ?? "What the workload answers" } }
      : {
          "101": {
            description: route.description,
            headers: { Upgrade: { schema: { type: "string", const: upgrade } } },
          },
        };
  const upgradeHeader: Json[] =
    upgrade === undefined
      ? []
      : [{ name: "Upgrade", in: "header", required: true, schema: { type: "string", const: upgrade } }];
  return {
    operationId: route.id,
    tags: ["streams"],
    summary: route.summary,
    description: route.description,
    ...security(route.scope),
    parameters: [...parameters("path", route.params), ...parameters("query", route.query), ...upgradeHeader],
    responses: { ...good, ...errorResponses(route) },
  };
}

/** The whole document, as plain JSON. */
export function openApiDocument(): JsonObject {
  const paths: Record<string, Record<string, Json>> = {};
  for (const id of ROUTE_IDS) {
    const route = ROUTE_SPECS[id];
    const path = route.path.replaceAll(/:([a-z_]+)/g, "{$1}");
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(id, route) };
  }
  for (const route of STREAM_ROUTES) {
    const path = route.path.replaceAll(/:([a-z_]+)/g, "{$1}");
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: streamOperation(route) };
  }
  const scopes = Object.entries(SCOPE_MEANINGS)
    .map(([scope, meaning]) => `${scope} (${meaning})`)
    .join(", ");
  return {
    openapi: "3.1.1",
    info: {
      title: "Volant",
      version: VOLANT_VERSION,
      description: `Says which microVMs should exist on a host, and tells what is true of them.\n\nScopes of keys: ${scopes}.`,
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/" }],
    paths,
    components: {
      securitySchemes: {
        apiKey: { type: "apiKey", in: "header", name: API_KEY_HEADER },
        bearer: { type: "http", scheme: "bearer" },
      },
      schemas: Object.fromEntries(Object.entries(COMPONENTS).map(([name, schema]) => [name, schemaJson(schema, name)])),
    },
  };
}
