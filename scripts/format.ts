/** `npm run format`: rewrites the sources in the project's format. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const result = spawnSync(join(root, "node_modules/.bin/oxfmt"), ["packages", "scripts", "test", "bench"], {
  cwd: root,
  stdio: "inherit",
});
process.exit(result.status ?? 1);
