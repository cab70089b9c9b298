/** `volar vms operations` and `volar vms call` as a user runs them, and the SDK under them: child processes against a real API and a real workload. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { VolantClient } from "@volant/sdk";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";

const entry = join(import.meta.dirname, "main.ts");
const document = {
  openapi: "3.1.0",
  paths: {
    "/things/{id}": { get: { operationId: "showThing", summary: "One \u001b[31mthing" } },
    "/healthz": { put: { operationId: "setHealth" } },
    "/fail": { post: { operationId: "fail" } },
    "/stall": { get: { operationId: "stall" } },
  },
};
const seen: (readonly (string | undefined)[])[] = [];
const workload = createServer(async (incoming, answer) => {
  if (incoming.url === "/openapi.json") return void answer.end(JSON.stringify(document));
  if (incoming.url === "/stall") return;
  seen.push([incoming.method, incoming.url, incoming.headers["content-type"], await text(incoming)]);
  if (incoming.url === "/fail") answer.statusCode = 422;
  answer.end('{"ok":1}');
});

let running: RunningApi;
before(async () => {
  running = await runApi({ apiKey: "k" });
  workload.listen(0, "127.0.0.1");
  await once(workload, "listening");
  await running.useCases.vms.create({ name: "web" });
  running.workloads.set("web", (workload.address() as AddressInfo).port);
});
after(async () => {
  await running.api.close();
  workload.closeAllConnections();
  workload.close();
  assert.deepEqual(running.errors, []);
});

async function volar(args: readonly string[], input = "") {
  const child = spawn(process.execPath, [entry, "vms", ...args], {
    env: { PATH: process.env["PATH"], VOLANT_API_BASE: running.address, VOLANT_API_KEY: "k" },
  });
  child.stdin.on("error", () => undefined).end(input);
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { code: await closed, stdout, stderr };
}

test("volar vms operations lists what the workload's document offers, and nothing of it moves the terminal", async () => {
  const { code, stdout } = await volar(["operations", "web"]);
  assert.equal(code, 0);
  assert.match(stdout, /^OPERATION +METHOD +PATH +SUMMARY\nshowThing +GET +\/things\/\{id\} +One \\x1b\[31mthing\n/);
  const listed = JSON.parse((await volar(["operations", "web", "--output", "json"])).stdout) as { id: string }[];
  assert.deepEqual(
    listed.map(({ id }) => id),
    ["showThing", "setHealth", "fail", "stall"],
  );
});

test("volar vms call sends path parameters, query and body, and prints the answer as it is", async () => {
  const shown = await volar(["call", "web", "showThing", "--query", "id=a/b", "--query", "x=1", "--query", "x=2"]);
  assert.deepEqual([shown.code, shown.stdout, shown.stderr], [0, '{"ok":1}', ""]);
  const set = await volar(["call", "web", "PUT /healthz", "--body", '{"a":1}']);
  assert.equal(set.code, 0);
  const piped = await volar(["call", "web", "setHealth", "--body-file", "-", "--content-type", "text/plain"], "raw");
  assert.equal(piped.code, 0);
  assert.deepEqual(seen, [
    ["GET", "/things/a%2Fb?x=1&x=2", undefined, ""],
    ["PUT", "/healthz", "application/json", '{"a":1}'],
    ["PUT", "/healthz", "text/plain", "raw"],
  ]);
});

test("volar vms call fails with the answer on standard output where the workload says no, and in a sentence where there is none", async () => {
  const refused = await volar(["call", "web", "fail"]);
  assert.deepEqual([refused.code, refused.stdout], [1, '{"ok":1}']);
  assert.match(refused.stderr, /^volar: the workload of VM "web" answered 422/);
  const stalled = await volar(["call", "web", "stall", "--timeout", "100ms"]);
  assert.deepEqual([stalled.code, stalled.stdout], [1, ""]);
  assert.match(stalled.stderr, /did not answer within 0\.1 s/);
  assert.match((await volar(["call", "web", "gone"])).stderr, /no operation "gone"\n {2}it has: showThing/);
  const lacking = await volar(["call", "web", "showThing"]);
  assert.equal(lacking.code, 2);
  assert.match(lacking.stderr, /needs a value for "id"/);
  assert.equal((await volar(["call", "web", "fail", "--body", "{}", "--body-file", "x"])).code, 2);
  assert.equal((await volar(["call", "web", "showThing", "--query", "id=1", "--body", "{}"])).code, 2);
  assert.equal((await volar(["call", "none", "showThing"])).code, 1);
});

test("the SDK tells a workload's refusal, which is an answer, from volantd's, which is an error", async () => {
  const volant = new VolantClient({ baseUrl: running.address, apiKey: "k" });
  const answer = await volant.workloads.call("web", "fail");
  assert.deepEqual([answer.status, await answer.json()], [422, { ok: 1 }]);
  await assert.rejects(volant.workloads.request("none", "/x"), { code: "not_found" });
  await assert.rejects(volant.workloads.action("web", "hello", "greet"), { code: "not_found" });
  await assert.rejects(volant.workloads.pluginAction("hello", "greet"), { code: "not_found" });
  assert.equal((await volant.workloads.openApi("web")).openapi, "3.1.0");
});
