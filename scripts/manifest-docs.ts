/** `node scripts/manifest-docs.ts`: writes docs/manifest.schema.json and docs/manifest.md from the contract. A unit test fails where they are stale. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { ManifestFile } from "../packages/contract/src/manifest.ts";
import { manifestPage, type PlainSchema } from "./manifest-page.ts";

const docs = join(import.meta.dirname, "../docs");

/** The published schema, as plain JSON. */
export function manifestSchema(): PlainSchema {
  const schema = JSON.parse(JSON.stringify(ManifestFile)) as PlainSchema;
  return { $schema: "https://json-schema.org/draft/2020-12/schema", ...schema } as PlainSchema;
}

/** Paths and contents. */
export function manifestDocs(): Map<string, string> {
  const schema = manifestSchema();
  return new Map([
    [join(docs, "manifest.schema.json"), `${JSON.stringify(schema, undefined, 2)}\n`],
    [join(docs, "manifest.md"), manifestPage(schema)],
  ]);
}

if (import.meta.main) for (const [path, text] of manifestDocs()) writeFileSync(path, text);
