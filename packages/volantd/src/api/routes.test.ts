/** Every route over real HTTP, good and bad input. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test, { after, before } from "node:test";
import {
  checkSchema,
  ErrorBody,
  Plugin,
  SystemInfo,
  SystemSummary,
  Vm,
  VmConfigState,
  VmConfigVersion,
  VolantError,
} from "@volant/contract";
import { Type } from "typebox";
import { rawRequest, sendJson, type RawAnswer } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
let base: string;
const file = Buffer.from("a small archive");
const checksum = `sha256:${createHash("sha256").update(file).digest("hex")}`;
const manifest = {
  name: "hello",
  version: "1.0.0",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { type: "http", base_url: "http://127.0.0.1:80" },
  initramfs: { url: "file:///hello.cpio", checksum },
};

before(async () => {
  running = await runApi();
  base = running.address;
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, [], "no request ran into a bug");
});

function assertRefused(answer: RawAnswer, status: number, code: string, sentence: RegExp): void {
  assert.equal(answer.status, status, answer.text);
  const body = checkSchema(ErrorBody, answer.json, "answer");
  assert.equal(body.code, code);
  assert.match(body.error, sentence);
}

function putFile(content: Buffer, sum = checksum): Promise<RawAnswer> {
  return rawRequest(base, `/api/v1/images/${sum}`, {
    method: "PUT",
    headers: { "content-type": "application/octet-stream" },
    body: content,
  });
}

test("health is answered at both of its paths", async () => {
  for (const path of ["/healthz", "/api/v1/system/status"]) {
    const answer = await rawRequest(base, path);
    assert.deepEqual([answer.status, answer.json], [200, { status: "ok" }]);
  }
});

test("the OpenAPI document is served at both of its paths and names every route", async () => {
  for (const path of ["/openapi", "/api/v1/openapi"]) {
    const { status, json } = await rawRequest(base, path);
    assert.equal(status, 200);
    const document = json as { openapi: string; paths: Record<string, object> };
    assert.equal(document.openapi, "3.1.1");
    assert.ok("/api/v1/vms/{name}/restart" in document.paths);
  }
});

test("an image is missing, then handed over, then there", async () => {
  assert.equal((await rawRequest(base, `/api/v1/images/${checksum}`, { method: "HEAD" })).status, 404);
  assertRefused(await putFile(Buffer.from("other bytes")), 400, "checksum_mismatch", /does not have the checksum/);
  assert.equal((await putFile(file)).status, 204);
  assert.equal((await rawRequest(base, `/api/v1/images/${checksum}`, { method: "HEAD" })).status, 200);
});

test("a bad checksum in the path is named", async () => {
  assertRefused(await putFile(file, "sha256:00"), 400, "invalid", /field "checksum" must be sha256: and 64/);
});

test("an upload without a file is refused", async () => {
  const answer = await rawRequest(base, `/api/v1/images/${checksum}`, { method: "PUT" });
  assertRefused(answer, 400, "invalid", /has no file/);
});

test("a plugin is installed, listed, shown, disabled, enabled; its answers fit their schemas", async () => {
  const installed = await sendJson(base, "/api/v1/plugins", manifest);
  assert.equal(installed.status, 201, installed.text);
  assert.deepEqual(checkSchema(Plugin, installed.json, "answer").manifest, manifest);
  assert.deepEqual((await rawRequest(base, "/api/v1/plugins")).json, { plugins: ["hello"] });
  checkSchema(Plugin, (await rawRequest(base, "/api/v1/plugins/hello")).json, "answer");
  assert.deepEqual((await rawRequest(base, "/api/v1/plugins/hello/manifest")).json, manifest);
  const disabled = await sendJson(base, "/api/v1/plugins/hello/enabled", { enabled: false });
  assert.equal(checkSchema(Plugin, disabled.json, "answer").enabled, false);
  assertRefused(await rawRequest(base, "/api/v1/plugins/hello/manifest"), 409, "disabled", /disabled/);
  assert.equal((await sendJson(base, "/api/v1/plugins/hello/enabled", { enabled: true })).status, 200);
  assertRefused(await sendJson(base, "/api/v1/plugins", manifest), 409, "exists", /exists already/);
  assertRefused(await rawRequest(base, "/api/v1/plugins/nope"), 404, "not_found", /"nope"/);
});

test("a VM is created, listed with filters and the count before paging, shown, stopped, started, restarted, deleted", async () => {
  for (const name of ["web-1", "web-2", "db"]) {
    const created = await sendJson(base, "/api/v1/vms", { name, plugin: "hello", config: { env: { A: "1" } } });
    assert.equal(created.status, 201, created.text);
    assert.equal(checkSchema(Vm, created.json, "answer").status, "pending");
  }
  const listed = await rawRequest(
    base,
    "/api/v1/vms?q=web&status=pending,running&status=crashed&limit=1&offset=1&sort=name",
  );
  assert.equal(listed.headers["x-total-count"], "2");
  assert.deepEqual(
    checkSchema(Type.Array(Vm), listed.json, "answer").map((vm) => vm.name),
    ["web-2"],
  );
  assertRefused(await rawRequest(base, "/api/v1/vms/web-1/start", { method: "POST" }), 409, "wrong_state", /started/);
  const stopped = await rawRequest(base, "/api/v1/vms/web-1/stop", { method: "POST" });
  assert.equal(checkSchema(Vm, stopped.json, "answer").status, "stopped");
  assert.equal((await rawRequest(base, "/api/v1/vms/web-1/start", { method: "POST" })).status, 200);
  assert.equal((await sendJson(base, "/api/v1/vms/web-1/restart", {})).status, 200);
  assertRefused(await rawRequest(base, "/api/v1/plugins/hello", { method: "DELETE" }), 409, "in_use", /needed/);
  for (const name of ["web-1", "web-2", "db"]) {
    const gone = await rawRequest(base, `/api/v1/vms/${name}`, { method: "DELETE" });
    assert.deepEqual([gone.status, gone.text], [204, ""]);
  }
  assertRefused(await rawRequest(base, "/api/v1/vms/web-1"), 404, "not_found", /"web-1"/);
  assert.equal((await rawRequest(base, "/api/v1/plugins/hello", { method: "DELETE" })).status, 204);
});

test("a request waits as its wait says: the outcome has the usual status, and 202 says that it is still to come", async () => {
  const create = (name: string, wait: string) => sendJson(base, `/api/v1/vms?wait=${wait}`, { name });
  const early = await create("early", "0s");
  assert.deepEqual([early.status, checkSchema(Vm, early.json, "answer").status], [202, "pending"]);
  const moved = create("waits", "30");
  while (running.feed.readers === 0) await new Promise(setImmediate);
  running.move("waits", "running");
  const seen = await moved;
  assert.deepEqual([seen.status, checkSchema(Vm, seen.json, "answer").status], [201, "running"]);
  const stop = await sendJson(base, "/api/v1/vms/waits/stop?wait=0ms", {});
  assert.deepEqual([stop.status, checkSchema(Vm, stop.json, "answer").status], [202, "running"]);
  assert.equal((await sendJson(base, "/api/v1/vms/waits/stop?wait", {})).status, 200);
  const patched = await sendJson(base, "/api/v1/vms/waits/config?wait=1m", { env: {} }, "PATCH");
  assert.equal(patched.status, 200);
  checkSchema(VmConfigState, patched.json, "answer");
  const begun = await rawRequest(base, "/api/v1/vms/waits?wait=0", { method: "DELETE" });
  assert.deepEqual([begun.status, checkSchema(Vm, begun.json, "answer").name], [202, "waits"]);
  for (const name of ["early", "waits"]) {
    assert.equal((await rawRequest(base, `/api/v1/vms/${name}?wait=10m`, { method: "DELETE" })).status, 204);
  }
  for (const wait of ["soon", "-1", "11m", "601", "1.5s"]) {
    assertRefused(await create("never", wait), 400, "invalid", /"wait" must be a time such as 30s, at most 10m/);
  }
  assertRefused(await rawRequest(base, "/api/v1/vms/never"), 404, "not_found", /"never"/);
});

test("a client that hangs up ends its wait and nothing else", { timeout: 60_000 }, async () => {
  const gone = new AbortController();
  const waits = fetch(`${base}/api/v1/vms?wait=10m`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name: "left" }),
    signal: gone.signal,
  });
  const broken = assert.rejects(waits, { name: "AbortError" });
  while (running.feed.readers === 0) await new Promise(setImmediate);
  gone.abort();
  await broken;
  while (running.feed.readers > 0) await new Promise(setImmediate);
  assert.equal((await rawRequest(base, "/api/v1/vms/left")).status, 200);
  assert.equal((await rawRequest(base, "/api/v1/vms/left", { method: "DELETE" })).status, 204);
});

test("an Idempotency-Key is passed on, and one that is none is refused", async () => {
  const create = (key: string) =>
    rawRequest(base, "/api/v1/vms", {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": key },
      body: JSON.stringify({ name: "keyed" }),
    });
  const [first, second] = [await create("a-key"), await create("a-key")];
  assert.deepEqual([first.status, second.status, second.json], [201, 201, first.json]);
  for (const key of ["with space", "k".repeat(256)]) {
    assertRefused(await create(key), 400, "invalid", /header Idempotency-Key/);
  }
  assert.equal((await rawRequest(base, "/api/v1/vms/keyed", { method: "DELETE" })).status, 204);
});

test("a configuration is shown, patched and remembered; a null leaves its field alone", async () => {
  const config = { network: { mode: "bridged" }, env: { A: "1" } };
  assert.equal((await sendJson(base, "/api/v1/vms", { name: "set", config })).status, 201);
  const shown = await rawRequest(base, "/api/v1/vms/set/config");
  assert.deepEqual(checkSchema(VmConfigState, shown.json, "answer").config, config);
  const patch = { network: { mode: "vsock" }, env: null, expose: [] };
  const patched = await sendJson(base, "/api/v1/vms/set/config", patch, "PATCH");
  assert.equal(patched.status, 200, patched.text);
  const state = checkSchema(VmConfigState, patched.json, "answer");
  assert.deepEqual([state.version, state.config.network, state.config.env], [2, { mode: "vsock" }, { A: "1" }]);
  const versions = async (query: string) => {
    const answer = await rawRequest(base, `/api/v1/vms/set/config/history${query}`);
    return checkSchema(Type.Array(VmConfigVersion), answer.json, "answer").map(({ version }) => version);
  };
  assert.deepEqual([await versions(""), await versions("?limit=1")], [[2, 1], [2]]);
  const bad = await rawRequest(base, "/api/v1/vms/set/config/history?limit=0");
  assertRefused(bad, 400, "invalid", /"limit"/);
  assertRefused(await sendJson(base, "/api/v1/vms/set/config", { nett: {} }, "PATCH"), 400, "invalid", /"nett"/);
  assertRefused(await rawRequest(base, "/api/v1/vms/nobody/config"), 404, "not_found", /"nobody"/);
  await rawRequest(base, "/api/v1/vms/set", { method: "DELETE" });
});

test("information about the host and a summary fit their schemas", async () => {
  checkSchema(SystemInfo, (await rawRequest(base, "/api/v1/system/info")).json, "answer");
  checkSchema(SystemSummary, (await rawRequest(base, "/api/v1/system/summary")).json, "answer");
});

const badNames: readonly [string, string, RegExp][] = [
  ["with a slash", "a/b", /VM name "a\/b" must not contain "\/"/],
  ["with a comma", "a,b", /VM name "a,b" must not contain ","/],
  ["with a space", "a b", /must not contain " "/],
  ["of 300 bytes", "a".repeat(300), /300 characters/],
  ["that climbs folders", "..", /must start with a letter or digit/],
  ["with a NUL byte", "a\0b", /must not contain "\\u0000"/],
  ["with a line break", "a\nb", /must not contain "\\n"/],
];
for (const [what, name, sentence] of badNames) {
  test(`a VM name ${what} is refused in the body and in the path`, async () => {
    assertRefused(await sendJson(base, "/api/v1/vms", { name }), 400, "invalid", sentence);
    const path = `/api/v1/vms/${encodeURIComponent(name).replaceAll(".", "%2E")}`;
    assertRefused(await rawRequest(base, path), 400, "invalid", sentence);
  });
}

const badBodies: readonly [string, string, unknown, RegExp][] = [
  ["an unknown field", "/api/v1/vms", { name: "a", cpus: 1 }, /unknown field "cpus"/],
  [
    "an unknown field deep inside",
    "/api/v1/vms",
    { name: "a", config: { network: { moed: "x" } } },
    /"config\.network\.moed"/,
  ],
  ["text for a number", "/api/v1/vms", { name: "a", memory_mb: "512" }, /"memory_mb" must be a whole number/],
  ["a fraction of a core", "/api/v1/vms", { name: "a", cpu_cores: 0.5 }, /"cpu_cores" must be a whole number/],
  ["a list for a body", "/api/v1/vms", [], /must be an object/],
  ["a manifest without resources", "/api/v1/plugins", { ...manifest, resources: undefined }, /lacks "resources"/],
  ["a manifest with an unknown field", "/api/v1/plugins", { ...manifest, colour: "blue" }, /unknown field "colour"/],
  ["text for a switch", "/api/v1/plugins/hello/enabled", { enabled: "yes" }, /"enabled" must be true or false/],
  ["a body where none belongs", "/api/v1/vms/a/stop", { force: true }, /takes no request body/],
];
for (const [what, path, body, sentence] of badBodies) {
  test(`a request with ${what} is refused in one sentence`, async () => {
    assertRefused(await sendJson(base, path, body), 400, "invalid", sentence);
  });
}

test("a body that is no JSON, poisons prototypes or has another content type is refused", async () => {
  const post = (body: string, type = "application/json") =>
    rawRequest(base, "/api/v1/vms", { method: "POST", headers: { "content-type": type }, body });
  assertRefused(await post("{"), 400, "invalid", /not JSON/);
  assertRefused(await post('{"name":"a","__proto__":{"x":1}}'), 400, "invalid", /not JSON/);
  assertRefused(await post("name=a", "application/x-www-form-urlencoded"), 400, "invalid", /content type/);
  assertRefused(await post(""), 400, "invalid", /must be an object/);
});

const badQueries: readonly [string, RegExp][] = [
  ["limit=0", /field "limit"/],
  ["limit=ten", /"limit" must be a whole number/],
  ["limit=1&limit=2", /"limit" is given more than once/],
  ["status=sleeping", /"status\.0" must be one of "pending"/],
  ["sort=age", /"sort" must be one of/],
  ["api_key=secret", /a key must not stand in a URL/],
  ["__proto__=1", /unknown field "__proto__"/],
];
for (const [query, sentence] of badQueries) {
  test(`the query ${query} is refused in one sentence`, async () => {
    assertRefused(await rawRequest(base, `/api/v1/vms?${query}`), 400, "invalid", sentence);
  });
}

test("a query where none belongs is refused", async () => {
  assertRefused(await rawRequest(base, "/api/v1/vms/a?force=1"), 400, "invalid", /unknown field "force"/);
});

test("a body over 1 MiB is too large, and so are headers over 16 KiB", async () => {
  const answer = await sendJson(base, "/api/v1/vms", { name: "a", kernel_cmdline: "x".repeat(1_048_576) });
  assertRefused(answer, 413, "too_large", /1 MiB/);
  const headers = await rawRequest(base, "/healthz", { headers: { "x-big": "x".repeat(20_000) } });
  assertRefused(headers, 413, "too_large", /headers/);
});

test("a path that no one could mean is refused", async () => {
  assertRefused(await rawRequest(base, "/api/v1/vms/%zz"), 400, "invalid", /not a valid URL path/);
  assertRefused(await rawRequest(base, "/api/v2/vms"), 404, "not_found", /no route GET \/api\/v2\/vms/);
  assertRefused(await sendJson(base, "/api/v1/vms", {}, "PATCH"), 404, "not_found", /no route PATCH/);
});

test("a bug is answered without its details and logged with the request's id", async () => {
  running.failNext(new Error("secret internals"));
  const answer = await rawRequest(base, "/api/v1/vms");
  assertRefused(answer, 500, "internal", /request id/);
  assert.doesNotMatch(answer.text, /secret/);
  const [logged, ...more] = running.errors.splice(0);
  assert.deepEqual(more, []);
  assert.equal(logged?.["requestId"], answer.headers["x-request-id"]);
  assert.match(String(logged?.["err"]), /secret internals/);
});

test("an expected failure keeps its hint", async () => {
  running.failNext(new VolantError("not_ready", "bridge vbr0 is missing", { hint: "run volar setup" }));
  const answer = await sendJson(base, "/api/v1/vms", { name: "a" });
  assert.equal(answer.status, 503);
  assert.deepEqual(answer.json, { error: "bridge vbr0 is missing", code: "not_ready", hint: "run volar setup" });
});

test("a file over the limit is refused, announced or not, and the connection still gets its answer", async () => {
  const small = await runApi({ maxImageBytes: 1000 });
  try {
    const put = (headers: Record<string, string>) =>
      rawRequest(small.address, `/api/v1/images/${checksum}`, {
        method: "PUT",
        headers: { "content-type": "application/octet-stream", ...headers },
        body: Buffer.alloc(300_000),
      });
    assertRefused(await put({}), 413, "too_large", /larger/);
    assertRefused(await put({ "transfer-encoding": "chunked" }), 413, "too_large", /1000 bytes/);
    assert.equal(small.images.size, 0);
    assert.deepEqual(small.errors, []);
  } finally {
    await small.api.close();
  }
});
