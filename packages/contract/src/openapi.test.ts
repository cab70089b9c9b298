import assert from "node:assert/strict";
import test from "node:test";
import { fillPath, SOCKET_ENDPOINTS, STREAM_ENDPOINTS } from "./endpoints.ts";
import { ERROR_CODES } from "./errors.ts";
import { openApiDocument } from "./openapi.ts";
import { STREAM_ROUTES } from "./stream-routes.ts";
import { COMMON_ERRORS, ROUTE_IDS, ROUTE_SPECS } from "./routes.ts";

interface Operation {
  operationId: string;
  parameters?: { name: string; in: string; required: boolean; schema: object }[];
  responses: Record<string, { description: string; content?: object }>;
}

const document = openApiDocument() as unknown as {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, object> };
};

test("every route of the table is in the OpenAPI document, with each status it may answer", () => {
  for (const id of ROUTE_IDS) {
    const route = ROUTE_SPECS[id];
    const operation = document.paths[route.path.replaceAll(/:([a-z_]+)/g, "{$1}")]?.[route.method.toLowerCase()];
    assert.equal(operation?.operationId, id);
    const statuses = Object.keys(operation.responses);
    assert.ok(statuses.includes(String(route.status)), id);
    for (const code of [...COMMON_ERRORS, ...route.errors]) {
      if (route.open === true && code === "unauthorized") continue;
      assert.ok(statuses.includes(String(ERROR_CODES[code].status)), `${id} lacks ${code}`);
    }
  }
});

test("operation ids are unique and the document holds nothing that the table lacks", () => {
  const ids = Object.values(document.paths).flatMap((path) => Object.values(path).map((entry) => entry.operationId));
  assert.deepEqual(ids.toSorted(), [...ROUTE_IDS, ...STREAM_ROUTES.map(({ id }) => id)].toSorted());
});

test("every stream and WebSocket, and the proxy for each method, is in the document", () => {
  const endpoints = [...Object.values(STREAM_ENDPOINTS), ...Object.values(SOCKET_ENDPOINTS)];
  for (const { method, path } of endpoints) {
    const operation = document.paths[path.replaceAll(/:([a-z_]+)/g, "{$1}")]?.[method.toLowerCase()];
    assert.ok(operation?.responses["101"] !== undefined, path);
  }
  const proxy = document.paths["/api/v1/vms/{name}/agent/{path}"] ?? {};
  assert.deepEqual(Object.keys(proxy).toSorted(), ["delete", "get", "head", "options", "patch", "post", "put"]);
});

test("every path parameter is declared and required", () => {
  for (const [path, operations] of Object.entries(document.paths)) {
    const names = [...path.matchAll(/\{([a-z_]+)\}/g)].map((match) => match[1]);
    for (const operation of Object.values(operations)) {
      const declared = (operation.parameters ?? []).filter((parameter) => parameter.in === "path");
      assert.deepEqual(
        declared.map((parameter) => parameter.name),
        names,
      );
      assert.ok(declared.every((parameter) => parameter.required));
    }
  }
});

test("every reference resolves and every named schema is used", () => {
  const used = new Set([...JSON.stringify(document).matchAll(/"#\/components\/schemas\/(\w+)"/g)].map((m) => m[1]));
  assert.deepEqual([...used].toSorted(), Object.keys(document.components.schemas).toSorted());
});

test("what can be waited for says so, with the answer of a wait that came to its end first; what makes something takes a key", () => {
  const create = document.paths["/api/v1/vms"]?.["post"];
  const names = (create?.parameters ?? []).map((parameter) => `${parameter.in} ${parameter.name}`);
  assert.deepEqual(names, ["query wait", "header Idempotency-Key"]);
  const waiting = Object.values(document.paths).flatMap((operations) =>
    Object.values(operations).filter((operation) => operation.parameters?.some(({ name }) => name === "wait")),
  );
  const ids = waiting.map(({ operationId }) => operationId).toSorted();
  assert.deepEqual(ids, [
    "deployments.create",
    "deployments.delete",
    "deployments.patch",
    "deployments.rollback",
    "vms.config.patch",
    "vms.create",
    "vms.delete",
    "vms.restart",
    "vms.start",
    "vms.stop",
  ]);
  for (const { responses } of waiting) assert.ok("202" in responses);
});

test("path parameters are percent-encoded, and a missing one is a bug", () => {
  assert.equal(fillPath("/api/v1/vms/:name/start", { name: "a/b c" }), "/api/v1/vms/a%2Fb%20c/start");
  assert.throws(() => fillPath("/api/v1/vms/:name", {}), TypeError);
});
