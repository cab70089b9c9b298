/** `node scripts/openapi.ts` writes docs/openapi.json from the route table. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openApiDocument } from "../packages/contract/src/openapi.ts";

/** Where the document is committed. */
export const OPENAPI_PATH = join(import.meta.dirname, "../docs/openapi.json");

/** The document as it is committed. */
export function openApiText(): string {
  return `${JSON.stringify(openApiDocument(), undefined, 2)}\n`;
}

if (import.meta.main) writeFileSync(OPENAPI_PATH, openApiText());
