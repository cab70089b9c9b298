/** Requests made from the route table, valid and not: no bug, no status and no answer that the table does not promise. */
import assert from "node:assert/strict";
import test from "node:test";
import {
  checkSchema,
  COMMON_ERRORS,
  ErrorBody,
  ERROR_CODES,
  ROUTE_IDS,
  ROUTE_SPECS,
  type RouteSpec,
} from "@volant/contract";
import fc from "fast-check";
import type { TSchema } from "typebox";
import { rawRequest, type RawRequest } from "./testing/raw-request.ts";
import { runApi } from "./testing/running-api.ts";

/** Fewer or more by VOLANT_FUZZ_RUNS. */
const RUNS = Number(process.env["VOLANT_FUZZ_RUNS"] ?? 20_000);

interface PlainSchema {
  readonly type?: string;
  readonly const?: unknown;
  readonly anyOf?: readonly PlainSchema[];
  readonly properties?: Readonly<Record<string, PlainSchema>>;
  readonly required?: readonly string[];
  readonly items?: PlainSchema;
  readonly pattern?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly maxLength?: number;
}

/** Values that mostly fit a schema, so that requests reach the handlers too. */
function fitting(schema: PlainSchema, depth = 0): fc.Arbitrary<unknown> {
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map((branch) => fitting(branch, depth + 1)));
  switch (schema.type) {
    case "string":
      return schema.pattern === undefined
        ? fc.string({ maxLength: Math.min(schema.maxLength ?? 20, 20) })
        : fc.stringMatching(new RegExp(schema.pattern));
    case "integer":
      return fc.integer({ min: schema.minimum ?? 0, max: schema.maximum ?? 1000 });
    case "boolean":
      return fc.boolean();
    case "array":
      return fc.array(schema.items === undefined ? fc.string() : fitting(schema.items, depth + 1), { maxLength: 3 });
    case "object": {
      const entries = Object.entries(schema.properties ?? {}).map(
        ([name, part]) => [name, fitting(part, depth + 1)] as const,
      );
      const requiredKeys = [...(schema.required ?? [])];
      return entries.length === 0 ? fc.constant({}) : fc.record(Object.fromEntries(entries), { requiredKeys });
    }
    default:
      return fc.jsonValue();
  }
}

const plain = (schema: TSchema): PlainSchema => JSON.parse(JSON.stringify(schema)) as PlainSchema;

/** Names that exist by chance, good ones, and anything at all. */
const segment = fc.oneof(
  fc.constantFrom("a", "b", "hello"),
  fc.string({ minLength: 1, maxLength: 80 }),
  fc.string({ unit: "binary", minLength: 1, maxLength: 20 }),
  fc.constant(`sha256:${"0".repeat(64)}`),
);

function pathOf(route: RouteSpec): fc.Arbitrary<string> {
  const names = [...route.path.matchAll(/:([a-z_]+)/g)].map((match) => match[1] ?? "");
  return fc.tuple(...names.map(() => segment)).map((values) => {
    let index = 0;
    // A lone surrogate has no UTF-8, so no percent-encoding either.
    return route.path.replaceAll(/:[a-z_]+/g, () => encodeURIComponent((values[index++] ?? "").toWellFormed()));
  });
}

function queryOf(route: RouteSpec): fc.Arbitrary<string> {
  const names = Object.keys(route.query?.properties ?? {});
  const name = fc.oneof(fc.constantFrom("x", "limit", ...names), fc.string({ maxLength: 8 }));
  const value = fc.oneof(fc.constantFrom("1", "0", "running", "name", "asc", "", "a,b"), fc.string({ maxLength: 12 }));
  // Whoever waits here waits for nothing.
  const shortWait = fc.constantFrom("0", "1ms", "11m", "soon");
  const pair = name.chain((key) => fc.tuple(fc.constant(key), key === "wait" ? shortWait : value));
  const pairs = fc.array(pair, { maxLength: 3 });
  return fc.oneof(
    { weight: 2, arbitrary: fc.constant("") },
    {
      weight: 1,
      arbitrary: pairs.map(
        (given) =>
          `?${new URLSearchParams(given.map(([key, text]): [string, string] => [key.toWellFormed(), text.toWellFormed()])).toString()}`,
      ),
    },
  );
}

function bodyOf(route: RouteSpec): fc.Arbitrary<Pick<RawRequest, "body" | "headers">> {
  const json = (arbitrary: fc.Arbitrary<unknown>) =>
    arbitrary.map((value) => ({ body: JSON.stringify(value) ?? "", headers: { "content-type": "application/json" } }));
  const bytes = fc.uint8Array({ maxLength: 200 }).map((value) => Buffer.from(value));
  const types = fc.constantFrom(
    "application/json",
    "application/octet-stream",
    "text/plain",
    "multipart/form-data",
    ";",
  );
  const anything = fc.tuple(bytes, types).map(([body, type]) => ({ body, headers: { "content-type": type } }));
  const nothing = fc.constant({});
  if (route.method === "GET" || route.method === "HEAD") return nothing;
  if (route.body === undefined) return fc.oneof(nothing, json(fc.jsonValue()), anything);
  return fc.oneof(
    { weight: 3, arbitrary: json(fitting(plain(route.body))) },
    { weight: 1, arbitrary: json(fc.jsonValue()) },
    { weight: 1, arbitrary: anything },
  );
}

const fuzzed = ROUTE_IDS.filter((id) => {
  const { events, download, workloadAnswer } = ROUTE_SPECS[id];
  return events === undefined && download === undefined && workloadAnswer === undefined;
});
// Each route's is made once: that takes longer than a request.
const requests = fc.oneof(
  ...fuzzed.map((id) => {
    const route = ROUTE_SPECS[id];
    return fc.record({ id: fc.constant(id), path: pathOf(route), query: queryOf(route), extra: bodyOf(route) });
  }),
);

test(`${RUNS} requests made from the route table get no answer that it does not promise`, async () => {
  const running = await runApi();
  for (const name of ["a", "b"]) await running.useCases.vms.create({ name });
  try {
    await fc.assert(
      fc.asyncProperty(requests, async ({ id, path, query, extra }) => {
        const route = ROUTE_SPECS[id];
        const answer = await rawRequest(running.address, `${path}${query}`, { method: route.method, ...extra });
        assert.deepEqual(running.errors, [], "a bug was logged");
        if (answer.status === route.status) {
          if (route.response !== undefined) checkSchema(route.response, answer.json, "answer");
          else assert.equal(answer.text, "");
          return;
        }
        if (answer.status === 202 && route.accepted !== undefined) {
          checkSchema(route.accepted, answer.json, "answer");
          return;
        }
        const promised = [...COMMON_ERRORS, ...route.errors];
        assert.ok(
          promised.some((code) => ERROR_CODES[code].status === answer.status),
          `${id}: ${answer.status} ${answer.text}`,
        );
        // There is no guest here to be reached.
        assert.ok(answer.status < 500 || answer.status === 502, answer.text);
        if (route.method === "HEAD") return;
        const { code } = checkSchema(ErrorBody, answer.json, "answer");
        assert.ok(
          promised.some((known) => known === code),
          `${id}: ${code}`,
        );
      }),
      { numRuns: RUNS },
    );
  } finally {
    await running.api.close();
  }
});
