import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { findOperation, listOperations, operationTarget } from "./operations.ts";

const document = {
  openapi: "3.1.0",
  servers: [{ url: "http://127.0.0.1:8080/base/" }],
  paths: {
    "/things": {
      parameters: [{ name: "page", in: "query" }],
      get: { operationId: "listThings", summary: "All of them", parameters: [{ name: "limit", in: "query" }] },
      post: { operationId: "makeThing", description: "Makes one.\nReally", requestBody: {} },
    },
    "/things/{id}/{part}": { get: { parameters: [{ name: "id", in: "path" }] } },
    "x-not-a-path": { get: {} },
  },
};

test("operations are listed with method, path behind the server's, and what they take", () => {
  const [list, make, part, ...rest] = listOperations(document);
  assert.deepEqual(rest, []);
  assert.deepEqual(list, {
    id: "listThings",
    method: "GET",
    path: "/base/things",
    summary: "All of them",
    query: ["page", "limit"],
    body: false,
  });
  assert.deepEqual([make?.summary, make?.body], ["Makes one.", true]);
  assert.equal(part?.id, "GET /things/{id}/{part}");
});

test("an operation is found by its id, or by method and path; an unknown or ambiguous one is refused with what there is", () => {
  const operations = listOperations(document);
  assert.equal(findOperation(operations, "makeThing").method, "POST");
  assert.equal(findOperation(operations, "GET /base/things").id, "listThings");
  assert.throws(() => findOperation(operations, "gone"), { code: "not_found", hint: /listThings, makeThing/ });
  const twice = operations.map((operation) => ({ ...operation, id: "same" }));
  assert.throws(() => findOperation(twice, "same"), { code: "invalid" });
});

test("values go into the path where it names them, encoded as one segment, and all others into the query", () => {
  const [list, , part] = listOperations(document);
  assert.ok(list !== undefined && part !== undefined);
  assert.equal(
    operationTarget(list, [
      ["tag", "a b"],
      ["tag", "c&d"],
    ]),
    "/base/things?tag=a+b&tag=c%26d",
  );
  assert.equal(
    operationTarget(part, [
      ["id", "../x/y"],
      ["part", "z?"],
    ]),
    "/base/things/..%2Fx%2Fy/z%3F",
  );
  assert.throws(() => operationTarget(part, [["id", "1"]]), { code: "invalid", hint: /--query part=/ });
  assert.throws(
    () =>
      operationTarget(part, [
        ["id", ".."],
        ["part", "z"],
      ]),
    { code: "invalid" },
  );
});

test("whatever a guest sends for a document gives a list, and never an exception", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), fc.jsonValue(), (paths, servers, item) => {
      for (const given of [paths, { paths, servers }, { paths: { "/x": item }, servers: [{ url: servers }] }]) {
        assert.ok(Array.isArray(listOperations(given)));
      }
    }),
  );
});
