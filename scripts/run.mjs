/** What `npm start`, `npm test`, `npm run check`, `npm run bench`, `npm run package` and `npm run format` run: set-up first, then the script with the right Node. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { SetUpError, cacheDir, prepare, root } from "./prepare.mjs";

/** @type {Record<string, {extent: "sources" | "agent" | "run" | "test", script: string}>} */
const commands = {
  start: { extent: "run", script: "scripts/start.ts" },
  test: { extent: "test", script: "scripts/test.ts" },
  bench: { extent: "test", script: "bench/main.ts" },
  package: { extent: "agent", script: "scripts/package.ts" },
  check: { extent: "sources", script: "scripts/check.ts" },
  format: { extent: "sources", script: "scripts/format.ts" },
};

const [name = "", ...args] = process.argv.slice(2);
const command = commands[name];
if (command === undefined) {
  process.stderr.write(`volant: no command ${JSON.stringify(name)}: use one of ${Object.keys(commands).join(", ")}\n`);
  process.exit(2);
}
try {
  const node = prepare(command.extent);
  const child = spawn(node, [join(root, command.script), ...args], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"] ?? join(cacheDir, "node-compile") },
  });
  // A terminal sends Ctrl-C to the whole group; the child decides what it means, and this process only waits for it.
  for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
    process.on(signal, () => {
      if (signal !== "SIGINT" || !process.stdin.isTTY) child.kill(signal);
    });
  }
  child.on("exit", (code, signal) => process.exit(code ?? (signal === null ? 1 : 128)));
} catch (error) {
  if (!(error instanceof SetUpError)) throw error;
  process.stderr.write(`volant: ${error.message}\n`);
  process.exit(1);
}
