/** `node scripts/cli-reference.ts`: writes what docs/ holds about volar's commands, from their definitions. A unit test fails where it is stale. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MAN_FOLDER, referenceFiles } from "../packages/volar/src/reference/files.ts";

const root = join(import.meta.dirname, "..");
const files = await referenceFiles();
rmSync(join(root, MAN_FOLDER), { recursive: true, force: true });
mkdirSync(join(root, MAN_FOLDER));
for (const [path, text] of files) writeFileSync(join(root, path), text);
