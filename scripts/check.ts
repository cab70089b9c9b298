/** `npm run check`: types, lint, format and import rules. All of them run, so that one run shows everything. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { findForbiddenImports } from "./import-rules.ts";

const root = join(import.meta.dirname, "..");

/** Runs one of the project's own tools; its output goes to the terminal. */
function runTool(name: string, args: readonly string[]): boolean {
  const result = spawnSync(join(root, "node_modules/.bin", name), args, { cwd: root, stdio: "inherit" });
  if (result.error !== undefined) throw result.error;
  return result.status === 0;
}

const checks: Record<string, () => boolean> = {
  types: () => runTool("tsc", ["-p", "tsconfig.json"]),
  lint: () => runTool("oxlint", ["--deny-warnings", "packages", "scripts", "test", "bench"]),
  format: () => runTool("oxfmt", ["--check", "packages", "scripts", "test", "bench"]),
  imports: () => {
    const found = findForbiddenImports(root);
    for (const line of found) process.stderr.write(`${line}\n`);
    return found.length === 0;
  },
};

const failed = Object.entries(checks).filter(([name, check]) => {
  const ok = check();
  process.stderr.write(`check: ${name} ${ok ? "ok" : "FAILED"}\n`);
  return !ok;
});
process.exit(failed.length === 0 ? 0 : 1);
