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
  VolantError,
  PLANNED_ROUTES,
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
  ["api_key=secret", /unknown field "api_key"/],
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

test("every planned route answers that it is not supported yet, whatever is sent", async () => {
  for (const { methods, path } of PLANNED_ROUTES) {
    const target = path.replaceAll(/:[a-z_]+/g, "a").replace("*", "b/c");
    for (const method of methods) {
      const answer = await rawRequest(base, target, {
        method,
        headers: { "content-type": "text/plain" },
        ...(method === "GET" ? {} : { body: "x" }),
      });
      assertRefused(answer, 501, "not_supported", /not supported by this version/);
    }
  }
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
