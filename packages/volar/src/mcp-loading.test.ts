import assert from "node:assert/strict";
import { registerHooks } from "node:module";
import { PassThrough } from "node:stream";
import test from "node:test";

const loaded: string[] = [];
registerHooks({
  load(url, context, next) {
    loaded.push(url);
    return next(url, context);
  },
});

test("no command but volar mcp loads the library of the Model Context Protocol", async () => {
  const { run } = await import("./run.ts");
  const stream = () => new PassThrough().resume();
  const io = { stdin: stream().end(), stdout: stream(), stderr: stream(), stderrIsTerminal: false, env: {} };
  const library = () => loaded.filter((url) => /\/node_modules\/(@modelcontextprotocol|zod)\//.test(url));
  assert.equal(await run(["mcp", "--help"], io), 0);
  assert.equal(await run(["vms", "list", "--api", "http://127.0.0.1:9"], io), 1);
  assert.deepEqual(library(), []);
  assert.equal(await run(["mcp", "--api", "http://127.0.0.1:9"], io), 0);
  assert.ok(library().length > 0);
});
