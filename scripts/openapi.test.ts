import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { OPENAPI_PATH, openApiText } from "./openapi.ts";

test("docs/openapi.json is what the route table says now", () => {
  const isStale = readFileSync(OPENAPI_PATH, "utf8") !== openApiText();
  assert.ok(!isStale, "docs/openapi.json is stale: write it anew with node scripts/openapi.ts");
});
