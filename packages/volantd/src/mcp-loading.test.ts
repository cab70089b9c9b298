/** What the protocol's library costs is paid by whoever uses it. */
import assert from "node:assert/strict";
import { registerHooks } from "node:module";
import test from "node:test";

const loaded: string[] = [];
registerHooks({
  load(url, context, next) {
    loaded.push(url);
    return next(url, context);
  },
});

const library = () => loaded.filter((url) => /\/node_modules\/(@modelcontextprotocol|zod)\//.test(url));

test("volantd loads the library of the Model Context Protocol at the first message, and not for v1's envelope", async () => {
  await import("./compose.ts");
  const { runApi } = await import("./api/testing/running-api.ts");
  const { rawRequest, sendJson } = await import("./api/testing/raw-request.ts");
  const running = await runApi();
  assert.equal((await rawRequest(running.address, "/api/v1/vms")).status, 200);
  assert.equal((await sendJson(running.address, "/api/v1/mcp", { command: "vms.list" })).status, 200);
  assert.ok(loaded.length > 100, "loading is seen");
  assert.deepEqual(library(), []);
  const message = { jsonrpc: "2.0", id: 1, method: "tools/list" };
  const headers = { "content-type": "application/json", accept: "application/json, text/event-stream" };
  const body = JSON.stringify(message);
  assert.equal((await rawRequest(running.address, "/mcp", { method: "POST", headers, body })).status, 200);
  assert.ok(library().length > 0);
  await running.api.close();
});
