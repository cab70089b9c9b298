/** A workload's document and actions through the API, against a real HTTP server in the workload's place. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
let serve: (incoming: IncomingMessage, answer: ServerResponse) => void;
const workload = createServer((incoming, answer) => serve(incoming, answer));
const file = Buffer.from("archive");
const checksum = `sha256:${createHash("sha256").update(file).digest("hex")}`;
const own = { openapi: "3.1.0", info: { title: "own" }, paths: {} };

before(async () => {
  running = await runApi({ apiKey: "secret" });
  workload.listen(0, "127.0.0.1");
  await once(workload, "listening");
  running.images.set(checksum, file);
  await running.useCases.plugins.install({
    name: "hello",
    version: "1",
    resources: { cpu_cores: 1, memory_mb: 64 },
    workload: { base_url: "http://workload.example:80" },
    initramfs: { url: "file:///x", checksum },
    openapi: JSON.stringify(own),
    actions: {
      greet: { method: "POST", path: "/greet" },
      slow: { method: "GET", path: "/slow", timeout_ms: 20 },
    },
  });
  await running.useCases.vms.create({ name: "web", plugin: "hello" });
  await running.useCases.vms.create({ name: "away", plugin: "hello" });
  await running.useCases.vms.create({ name: "other" });
  running.workloads.set("web", (workload.address() as AddressInfo).port);
  running.workloads.set("other", (workload.address() as AddressInfo).port);
});
after(async () => {
  await running.api.close();
  workload.closeAllConnections();
  workload.close();
  assert.deepEqual(running.errors, []);
});

const headers = { "x-volant-api-key": "secret", "content-type": "application/json" };
const get = (path: string) => fetch(`${running.address}/api/v1/${path}`, { headers });
const post = (path: string, body?: unknown) =>
  fetch(`${running.address}/api/v1/${path}`, {
    method: "POST",
    headers,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
const code = async (answer: Response): Promise<unknown[]> => [
  answer.status,
  ((await answer.json()) as { code: unknown }).code,
];

test("a workload's OpenAPI document is the guest's, and the manifest's where the guest has none or is away", async () => {
  const guests = { openapi: "3.0.0", info: { title: "guest" }, paths: { "/x": {} } };
  serve = (incoming, answer) => {
    answer.statusCode = incoming.url === "/openapi" ? 200 : 404;
    answer.end(incoming.url === "/openapi" ? JSON.stringify(guests) : "no");
  };
  const answer = await get("vms/web/openapi");
  assert.match(String(answer.headers.get("content-type")), /^application\/json/);
  assert.deepEqual(await answer.json(), guests);
  serve = (_incoming, other) => other.end("<html>");
  assert.deepEqual(await (await get("vms/web/openapi")).json(), own);
  assert.deepEqual(await (await get("vms/away/openapi")).json(), own);
  assert.deepEqual(await code(await get("vms/other/openapi")), [404, "not_found"]);
  assert.deepEqual(await code(await get("vms/none/openapi")), [404, "not_found"]);
});

test("a document as deep as a guest likes passes through as text", async () => {
  const deep = `{"openapi":"3.1.0","paths":{"/x":${"[".repeat(50_000)}${"]".repeat(50_000)}}}`;
  serve = (_incoming, answer) => answer.end(deep);
  assert.equal(await (await get("vms/web/openapi")).text(), deep);
});

test("an action is asked of the VM's workload, which gets the input and no key; its answer comes back as it is, sandboxed", async () => {
  let seen = "";
  serve = async (incoming, answer) => {
    seen = JSON.stringify([incoming.method, incoming.url, incoming.headers, await text(incoming)]);
    answer.writeHead(418, { "content-type": "text/html", "set-cookie": "a=b", "x-volant-answered-by": "me" });
    answer.end("<p>tea</p>");
  };
  const answer = await post("vms/web/actions/hello/greet", { name: "you" });
  assert.deepEqual([answer.status, await answer.text()], [418, "<p>tea</p>"]);
  assert.match(seen, /^\["POST","\/greet",.*\\"name\\":\\"you\\"/);
  assert.doesNotMatch(seen, /secret/);
  assert.equal(answer.headers.get("x-volant-answered-by"), "web");
  assert.match(String(answer.headers.get("content-security-policy")), /^sandbox/);
  assert.equal(answer.headers.get("set-cookie"), null);
});

test("a plugin's action goes to its first VM that runs, or to the one that is named; a disabled plugin has none", async () => {
  serve = (_incoming, answer) => answer.end("{}");
  assert.deepEqual(await code(await post("plugins/hello/actions/greet")), [409, "wrong_state"]);
  running.move("web", "running");
  const answer = await post("plugins/hello/actions/greet");
  assert.deepEqual([answer.status, answer.headers.get("x-volant-answered-by")], [200, "web"]);
  assert.equal((await post("plugins/hello/actions/greet?vm=web", {})).status, 200);
  assert.deepEqual(await code(await post("plugins/hello/actions/greet?vm=away")), [502, "guest_unreachable"]);
  assert.deepEqual(await code(await post("plugins/hello/actions/none")), [404, "not_found"]);
  assert.deepEqual(await code(await post("plugins/none/actions/greet")), [404, "not_found"]);
  running.useCases.plugins.setEnabled("hello", false);
  assert.deepEqual(await code(await post("plugins/hello/actions/greet")), [409, "disabled"]);
  assert.equal((await post("vms/web/actions/hello/greet")).status, 200, "VMs made from it go on");
  running.useCases.plugins.setEnabled("hello", true);
});

test("what is no action of the VM, comes too late, breaks off or grows without end is refused in a sentence", async () => {
  assert.deepEqual(await code(await post("vms/web/actions/other/greet")), [404, "not_found"]);
  assert.deepEqual(await code(await post("vms/web/actions/hello/none")), [404, "not_found"]);
  serve = () => {};
  assert.deepEqual(await code(await post("vms/web/actions/hello/slow")), [504, "timeout"]);
  serve = (incoming) => void incoming.socket.destroy();
  assert.deepEqual(await code(await post("vms/web/actions/hello/greet")), [502, "guest_unreachable"]);
  serve = (_incoming, answer) => {
    answer.writeHead(200);
    const more = (): void => {
      while (answer.writable && answer.write(Buffer.alloc(100_000)));
      answer.once("drain", more);
    };
    more();
  };
  assert.deepEqual(await code(await post("vms/web/actions/hello/greet")), [502, "guest_unreachable"]);
});
