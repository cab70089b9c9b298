import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import test from "node:test";
import type { TSchema } from "typebox";
import { checkSchema } from "../packages/contract/src/check.ts";
import { manifestDocs, manifestSchema } from "./manifest-docs.ts";
import { fieldsOf } from "./manifest-page.ts";

const root = join(import.meta.dirname, "..");
const readJson = (path: string): unknown => JSON.parse(readFileSync(join(root, path), "utf8"));

test("docs/manifest.schema.json and docs/manifest.md are what the contract says now", () => {
  for (const [path, text] of manifestDocs()) {
    const isStale = readFileSync(path, "utf8") !== text;
    assert.ok(!isStale, `docs/${basename(path)} is stale: write it anew with node scripts/manifest-docs.ts`);
  }
});

test("every field of a manifest has a row in docs/manifest.md, with words that say what it is", () => {
  const page = readFileSync(join(root, "docs/manifest.md"), "utf8");
  const fields = fieldsOf(manifestSchema());
  assert.ok(fields.length > 50);
  for (const { path, schema } of fields) {
    assert.ok((schema.description ?? "") !== "", `${path} has no description`);
    assert.ok(page.includes(`\n| \`${path}\` | `), `${path} has no row`);
  }
  // The example has each field that there is (golden.test.ts), so the walk over the schema has left none out.
  const named = new Set(fields.flatMap(({ path }) => path.split(/\.|\[\]/)));
  const names = (value: unknown): string[] =>
    typeof value !== "object" || value === null
      ? []
      : Object.entries(value).flatMap(([name, part]) => (/^\d+$/.test(name) ? names(part) : [name, ...names(part)]));
  const free = new Set(["tier", "GREETING", "greet"]);
  for (const name of names(readJson("packages/contract/golden/manifest.json"))) {
    assert.ok(named.has(name) || free.has(name), name);
  }
});

test("the schema as it is published takes the example plugin, which names it, and the contract's example", () => {
  const schema = readJson("docs/manifest.schema.json") as TSchema;
  const hello = checkSchema(schema, readJson("examples/hello/manifest.json"), "hello") as { readonly $schema: string };
  assert.equal(join(root, "examples/hello", hello.$schema), join(root, "docs/manifest.schema.json"));
  checkSchema(schema, readJson("packages/contract/golden/manifest.json"), "golden");
  assert.throws(() => checkSchema(schema, { ...hello, colour: "blue" }, "hello"), /unknown field "colour"/);
});
