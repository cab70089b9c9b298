import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { checkSchema, CreateVmRequest, ENDPOINTS, ROUTE_SPECS, VmListQuery, type RouteId } from "@volant/contract";
import type { RouteCall } from "./call.ts";
import { commandOf, runCommand } from "./envelope.ts";
import { runTool } from "./run-tool.ts";
import { answerObject, answerText, MAX_ANSWER_BYTES, refusalOf } from "./tool-answer.ts";
import { findTool, TOOLS, type Tool } from "./tools.ts";

const { signal } = new AbortController();

function tool(name: string): Tool {
  const found = findTool(name);
  assert.ok(found !== undefined, name);
  return found;
}

/** What a tool asks for. */
async function asked(name: string, given: Record<string, unknown>): Promise<[RouteId, RouteCall]> {
  const calls: [RouteId, RouteCall][] = [];
  const call = async (route: RouteId, made: RouteCall) => {
    calls.push([route, made]);
    return { body: {} };
  };
  await runTool(tool(name), given, call, signal);
  assert.equal(calls.length, 1);
  return calls[0] as [RouteId, RouteCall];
}

test("every tool has a name that all clients take, a command of its own, and an input whose fields are its route's", () => {
  const commands = TOOLS.map(commandOf);
  assert.equal(new Set(commands).size, TOOLS.length);
  for (const { name, route, input } of TOOLS) {
    assert.match(name, /^[a-z_]{1,64}$/);
    assert.match(
      name,
      /^[a-z]+_[a-z]+$/,
      "one word for the kind and one for what is done, or v1's name has too many dots",
    );
    const { params, query, body } = ROUTE_SPECS[route];
    const fields = [params, query, body].flatMap((part) =>
      Object.keys((part as typeof input | undefined)?.properties ?? {}),
    );
    for (const field of Object.keys(input.properties)) assert.ok(fields.includes(field), `${name} ${field}`);
    assert.equal((input as { additionalProperties?: unknown }).additionalProperties, false);
  }
});

test("docs/mcp.md has every tool with its route, and marks those that destroy", () => {
  const rows = readFileSync(join(import.meta.dirname, "../../../docs/mcp.md"), "utf8").split("\n");
  for (const { name, route, effect } of TOOLS) {
    const row = rows.find((line) => line.startsWith("| `") && line.includes(`\`${name}\``));
    assert.ok(row !== undefined, name);
    const { method, path } = ENDPOINTS[route];
    const [, , , routes = ""] = row.split("|");
    assert.ok(routes.includes(`${method} `) && routes.includes(`\`${path.replace("/api/v1/", "")}\``), row);
    assert.equal(row.includes("⚠"), effect === "destroys", row);
  }
});

test("a tool that only reads asks with GET, and one that changes something does not", () => {
  for (const { name, route, effect } of TOOLS) {
    assert.equal(ENDPOINTS[route].method === "GET", effect === "reads", name);
  }
});

test("arguments go to the path, the query and the body, as the route has them", async () => {
  const config = { env: { A: "b" } };
  const [route, create] = await asked("vms_create", { name: "web", plugin: "hello", config, wait: "30s" });
  assert.equal(route, "vms.create");
  assert.deepEqual(create, { params: {}, query: { wait: "30s" }, body: { name: "web", plugin: "hello", config } });
  checkSchema(CreateVmRequest, create.body, "body");
  assert.deepEqual(await asked("deployments_scale", { name: "shop", replicas: 0 }), [
    "deployments.patch",
    { params: { name: "shop" }, query: {}, body: { replicas: 0 } },
  ]);
  const [, list] = await asked("vms_list", { status: ["running", "crashed"] });
  assert.deepEqual(list, { params: {}, query: { limit: 100, status: ["running", "crashed"] } });
  checkSchema(VmListQuery, list.query, "query");
  assert.deepEqual((await asked("vms_logs", { name: "web" }))[1].query, { tail: 100 });
  assert.deepEqual((await asked("vms_logs", { name: "web", tail: 7 }))[1].query, { tail: 7 });
});

test("a tool takes nothing that its route would refuse, nor what a caller has no business with", async () => {
  const refused = (name: string, given: Record<string, unknown>, sentence: RegExp) =>
    assert.rejects(
      asked(name, given),
      (error: Error) => sentence.test(error.message) && refusalOf(error)?.code === "invalid",
    );
  await refused("vms_get", { name: "../../etc" }, /VM name "..\/..\/etc"/);
  await refused("vms_logs", { name: "web", follow: true }, /unknown field "follow"/);
  await refused("vms_logs", { name: "web", tail: 5000 }, /"tail"/);
  await refused("deployments_scale", { name: "shop", replicas: 1, paused: true }, /unknown field "paused"/);
  await refused("vms_create", { name: "a", config: { manifest: {} } }, /unknown field "config\/manifest"|manifest/);
  await refused("vms_exec", { name: "a", command: "ls" }, /"command" must be a list|"command"/);
});

test("an answer is an object: a list stands under its name, with the count before paging; nothing is said as done", () => {
  assert.deepEqual(answerObject(tool("vms_list"), { body: [], total: 3 }), { vms: [], total: 3 });
  assert.deepEqual(answerObject(tool("vms_get"), { body: { name: "web" } }), { name: "web" });
  assert.deepEqual(answerObject(tool("vms_delete"), { body: undefined }), { done: true });
});

test("of lines the last ones that there is room for are told, and how many are not; another answer that is too large is refused", () => {
  const lines = Array.from({ length: 5000 }, (_none, index) => ({ line: `${index} ${"ü".repeat(100)}` }));
  const { text, object } = answerText(tool("vms_logs"), { body: lines });
  assert.ok(Buffer.byteLength(text) <= MAX_ANSWER_BYTES);
  const kept = object["lines"] as { line: string }[];
  assert.equal(kept.at(-1), lines.at(-1));
  assert.equal(kept.length + Number(object["left_out"]), 5000);
  assert.ok(kept.length > 500, "most of the room is used");
  assert.deepEqual(JSON.parse(text), object);
  assert.throws(() => answerText(tool("vms_list"), { body: lines }), { code: "too_large" });
});

test("of a program's output the beginning that there is room for is told, whatever bytes it is made of", () => {
  const body = {
    exit_code: 0,
    stdout: "\0".repeat(1_000_000),
    stderr: "ü".repeat(9),
    timed_out: false,
    truncated: false,
  };
  const { text, object } = answerText(tool("vms_exec"), { body });
  assert.ok(Buffer.byteLength(text) <= MAX_ANSWER_BYTES);
  const { stdout, ...rest } = object;
  assert.deepEqual(rest, { exit_code: 0, stderr: body.stderr, timed_out: false, truncated: true });
  assert.match(String(stdout), /^\0{10000,}$/);
});

test("v1's create names its plugin by the runtime, unless it says otherwise", async () => {
  const bodyOf = async (params: Record<string, unknown>) => {
    let body: unknown;
    const call = async (_route: RouteId, made: RouteCall) => {
      body = made.body;
      return { body: {} };
    };
    await runCommand({ command: "volant.vms.create", params }, call, signal);
    return body;
  };
  assert.deepEqual(await bodyOf({ name: "a", runtime: "browser" }), {
    name: "a",
    runtime: "browser",
    plugin: "browser",
  });
  const both = { name: "a", runtime: "browser", plugin: "hello" };
  assert.deepEqual(await bodyOf(both), both);
});
