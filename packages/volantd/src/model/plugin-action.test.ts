import assert from "node:assert/strict";
import test from "node:test";
import type { Manifest } from "@volant/contract";
import { parseSubnet } from "./address.ts";
import { checkManifest } from "./manifest.ts";
import { actionRequest } from "./plugin-action.ts";
import { isOpenApi, openApiSource } from "./openapi-source.ts";

const manifest: Manifest = {
  name: "hello",
  version: "1",
  resources: { cpu_cores: 1, memory_mb: 64 },
  workload: { base_url: "http://127.0.0.1:8080" },
  actions: {
    greet: { method: "POST", path: "/greet", timeout_ms: 500 },
    find: { method: "GET", path: "/find?kind=thing" },
    odd: { method: "POST", path: "//elsewhere/a b\u0007c" },
    tunnel: { method: "CONNECT", path: "/x" },
  },
};

test("an action becomes its method and path with the input as JSON, within the manifest's time or 30 s", () => {
  assert.deepEqual(actionRequest(manifest, "greet", { name: "you" }), {
    method: "POST",
    path: "/greet",
    body: '{"name":"you"}',
    timeoutMs: 500,
  });
  assert.equal(actionRequest(manifest, "greet", undefined).body, undefined);
  assert.equal(actionRequest(manifest, "find", undefined).timeoutMs, 30_000);
});

test("of an action whose method has no content, the input becomes the query; what has no place there is refused", () => {
  const { path, body } = actionRequest(manifest, "find", { tag: ["a", "b c"], limit: 3, none: null });
  assert.deepEqual([path, body], ["/find?kind=thing&tag=a&tag=b+c&limit=3", undefined]);
  assert.throws(() => actionRequest(manifest, "find", { deep: { er: 1 } }), { code: "invalid" });
  assert.throws(() => actionRequest(manifest, "find", [1]), { code: "invalid" });
});

test("no path of a manifest leads to another host or out of its line, and no method opens a tunnel", () => {
  assert.equal(actionRequest(manifest, "odd", {}).path, "//elsewhere/a%20b%07c");
  assert.throws(() => actionRequest(manifest, "tunnel", {}), { code: "invalid" });
});

test("an action that there is not is refused with those that there are, names of Object's own included", () => {
  assert.throws(() => actionRequest(manifest, "gone", {}), { code: "not_found", hint: /find, greet/ });
  assert.throws(() => actionRequest(manifest, "constructor", {}), { code: "not_found" });
});

test("an OpenAPI document is looked for where the manifest says, else where programs usually have it; no other host is ever named", () => {
  const source = (openapi: string | undefined) =>
    openApiSource({ ...manifest, ...(openapi === undefined ? {} : { openapi }) });
  const usual = ["/openapi.json", "/openapi"];
  assert.deepEqual(source(undefined), { paths: usual, own: undefined });
  assert.deepEqual(source("/v2/api?x=1").paths, ["/v2/api?x=1"]);
  assert.deepEqual(source("http://127.0.0.1:8080/spec").paths, ["/spec"]);
  assert.deepEqual(source("https://elsewhere.example/spec").paths, usual);
  assert.deepEqual(source('{"openapi":"3.1.0"}'), { paths: usual, own: '{"openapi":"3.1.0"}' });
  assert.deepEqual(source("//elsewhere.example/x").paths, ["//elsewhere.example/x"]);
});

test("a manifest's openapi that leads nowhere, or is no such document, is refused", () => {
  const pool = { subnet: parseSubnet("10.0.0.0/24"), gateway: 0x0a000001 };
  const check = (openapi: string) =>
    checkManifest(
      {
        ...manifest,
        workload: { ...manifest.workload, entrypoint: ["/x"] },
        initramfs: { url: "/x" },
        openapi,
      },
      { bridge: "vbr0", pool },
    );
  for (const good of [
    "",
    "/openapi",
    "http://127.0.0.1:8080/x",
    "https://docs.example/x",
    ' {"openapi":"3.1.0","paths":{}}',
  ]) {
    assert.doesNotThrow(() => check(good), good);
  }
  for (const bad of ["openapi.json", "file:///x", "{", '{"paths":{}}', "ftp://x/y"]) {
    assert.throws(() => check(bad), { code: "invalid" }, bad);
  }
});

test("only an object with a version and paths is taken for an OpenAPI document", () => {
  assert.ok(isOpenApi('{"openapi":"3.1.0","paths":{}}'));
  assert.ok(isOpenApi('{"swagger":"2.0","paths":{}}'));
  for (const text of [
    "",
    "null",
    "[]",
    "{}",
    '{"openapi":3,"paths":{}}',
    '{"openapi":"3.1.0","paths":null}',
    "<html>",
  ]) {
    assert.ok(!isOpenApi(text), text);
  }
});
