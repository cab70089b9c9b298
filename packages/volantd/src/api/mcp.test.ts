/** The Model Context Protocol over HTTP, with the protocol's own client, and the v1 envelope. */
import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { Client, StreamableHTTPClientTransport, type ClientOptions } from "@modelcontextprotocol/client";
import { checkSchema, ErrorBody, McpCommandResult, RunResult, Vm, VolantError } from "@volant/contract";
import { TOOLS } from "@volant/mcp";
import { rawRequest, sendJson } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
let base: string;

before(async () => {
  running = await runApi();
  base = running.address;
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, [], "no request ran into a bug");
});

/** Both generations of the protocol: the one with a handshake, and the one without. */
const GENERATIONS: readonly (readonly [string, ClientOptions])[] = [
  ["2025", {}],
  ["2026", { versionNegotiation: { mode: "auto" } }],
];

async function connected(address = base, options: ClientOptions = {}, headers = {}): Promise<Client> {
  const client = new Client({ name: "a-test", version: "1.0.0" }, options);
  await client.connect(new StreamableHTTPClientTransport(new URL(`${address}/mcp`), { requestInit: { headers } }));
  return client;
}

type Answered = Awaited<ReturnType<Client["callTool"]>>;

function objectOf({ content, structuredContent }: Answered): Record<string, unknown> {
  const [first] = content;
  assert.equal(first?.type, "text");
  const object = JSON.parse(first?.type === "text" ? first.text : "") as Record<string, unknown>;
  assert.deepEqual(structuredContent, object, "the text and the structured content are the same");
  return object;
}

async function called(
  client: Client,
  name: string,
  given: Record<string, unknown> = {},
): Promise<Record<string, unknown>> {
  const answered = await client.callTool({ name, arguments: given });
  assert.notEqual(answered.isError, true, JSON.stringify(answered.content));
  return objectOf(answered);
}

async function refused(client: Client, name: string, given: Record<string, unknown>): Promise<ErrorBody> {
  const answered = await client.callTool({ name, arguments: given });
  assert.equal(answered.isError, true);
  return checkSchema(ErrorBody, objectOf(answered), "refusal");
}

for (const [generation, options] of GENERATIONS) {
  test(`the protocol of ${generation}: tools are listed with their schemas and hints, and a VM's life goes by tools`, async () => {
    const client = await connected(base, options);
    assert.equal(client.getNegotiatedProtocolVersion()?.slice(0, 4), generation);
    const { tools } = await client.listTools();
    assert.deepEqual(
      tools.map(({ name }) => name),
      TOOLS.map(({ name }) => name),
    );
    const hints = Object.fromEntries(tools.map(({ name, annotations }) => [name, annotations]));
    assert.equal(hints["vms_list"]?.readOnlyHint, true);
    assert.equal(hints["vms_delete"]?.destructiveHint, true);
    assert.equal(hints["vms_create"]?.destructiveHint, false);
    const create = tools.find(({ name }) => name === "vms_create")?.inputSchema;
    assert.deepEqual(create?.required, ["name"]);
    assert.ok("config" in (create?.properties ?? {}) && "wait" in (create?.properties ?? {}));

    const name = `web-${generation}`;
    checkSchema(Vm, await called(client, "vms_create", { name, config: { env: { A: "1" } } }), "VM");
    const listed = await called(client, "vms_list", { q: name, status: ["pending", "running"] });
    assert.deepEqual([(listed["vms"] as Vm[]).map((vm) => vm.name), listed["total"]], [[name], 1]);
    assert.equal((await called(client, "vms_stop", { name }))["status"], "stopped");
    assert.equal((await called(client, "vms_start", { name }))["status"], "pending");
    assert.equal((await called(client, "vms_restart", { name }))["status"], "pending");
    assert.equal((await called(client, "vms_get", { name }))["name"], name);
    assert.deepEqual(await called(client, "vms_delete", { name }), { done: true });
    assert.equal((await refused(client, "vms_get", { name })).code, "not_found");
    await client.close();
  });
}

test("deployments, plugins and the host are reached by tools", async () => {
  const client = await connected();
  await called(client, "deployments_create", { name: "shop", replicas: 2, config: {} });
  assert.equal((await called(client, "deployments_scale", { name: "shop", replicas: 3 }))["desired_replicas"], 3);
  assert.equal((await called(client, "deployments_get", { name: "shop" }))["desired_replicas"], 3);
  assert.equal(((await called(client, "deployments_list"))["deployments"] as unknown[]).length, 1);
  assert.match((await refused(client, "deployments_scale", { name: "shop" })).error, /lacks "replicas"/);
  assert.deepEqual(await called(client, "deployments_delete", { name: "shop" }), { done: true });
  assert.deepEqual(await called(client, "plugins_list"), { plugins: [] });
  assert.equal((await refused(client, "plugins_show", { plugin: "none" })).code, "not_found");
  assert.equal((await called(client, "system_summary"))["total_vms"], 0);
  assert.equal((await called(client, "system_info"))["status"], "ok");
  await client.close();
});

test("a refusal is the API's: its sentence, its code and its hint, also for arguments that do not fit", async () => {
  const client = await connected();
  const unfit = await refused(client, "vms_create", { name: "a b" });
  assert.equal(unfit.code, "invalid");
  assert.match(unfit.error, /VM name "a b" must not contain " "/);
  assert.match((await refused(client, "vms_get", { name: "x", size: 1 })).error, /unknown field "size"/);
  assert.match((await refused(client, "vms_get", {})).error, /arguments of vms_get lacks "name"/);
  await assert.rejects(client.callTool({ name: "vms_fly", arguments: {} }), /vms_fly/);
  await client.close();
});

test("a program is run in a VM: its output, its exit code, its input, its time and the room for its output are those that were asked for", async () => {
  await running.useCases.vms.create({ name: "runs" });
  const client = await connected();
  const exec = async (given: object) =>
    checkSchema(RunResult, await called(client, "vms_exec", { name: "runs", ...given }), "result");
  const rest = { timed_out: false, truncated: false, stdout: "", stderr: "" };
  assert.deepEqual(await exec({ command: ["echo", "a", "b; c"] }), { ...rest, exit_code: 0, stdout: "a b; c\n" });
  assert.deepEqual(await exec({ command: ["fail"] }), { ...rest, exit_code: 3, stderr: "it failed\n" });
  const text = "ü".repeat(100_000);
  const all = { command: ["cat"], stdin: text, max_output_bytes: 200_000 };
  assert.deepEqual(await exec(all), { ...rest, exit_code: 0, stdout: text });
  assert.deepEqual(await exec({ command: ["wait"], timeout_ms: 50 }), { ...rest, timed_out: true });
  const flood = await exec({ command: ["flood"], timeout_ms: 200, max_output_bytes: 1000 });
  assert.deepEqual(flood, { ...rest, timed_out: true, truncated: true, stdout: "x".repeat(1000) });
  assert.equal((await refused(client, "vms_exec", { name: "runs", command: ["none"] })).code, "not_found");
  assert.equal((await refused(client, "vms_exec", { name: "none", command: ["echo"] })).code, "not_found");
  assert.match((await refused(client, "vms_exec", { name: "runs", command: [] })).error, /"command"/);
  await client.close();
  await running.useCases.vms.delete("runs");
});

test("a log's and a console's last lines are read, and no more than there is room for", async () => {
  await running.useCases.vms.create({ name: "talks" });
  const client = await connected();
  for (let index = 0; index < 500; index += 1) {
    const line = `${index} ${"x".repeat(900)}`;
    running.logLines.push({ name: "talks", stream: "stdout", line, timestamp: "2026-01-01T00:00:00.000Z" });
  }
  const read = async (given: object) => {
    const { lines, left_out: leftOut } = await called(client, "vms_logs", { name: "talks", ...given });
    const numbers = (lines as { line: string }[]).map(({ line }) => Number.parseInt(line, 10));
    return { first: numbers[0], last: numbers.at(-1), count: numbers.length, leftOut };
  };
  assert.deepEqual(await read({ tail: 2 }), { first: 498, last: 499, count: 2, leftOut: undefined });
  assert.deepEqual(await read({}), { first: 400, last: 499, count: 100, leftOut: undefined });
  const most = await read({ tail: 500 });
  assert.equal(most.last, 499);
  assert.equal(most.count + Number(most.leftOut), 500);
  assert.ok(Number(most.leftOut) > 0);
  assert.deepEqual(await called(client, "vms_console", { name: "talks", lines: 1 }), {
    name: "talks",
    lines: ["the workload has started"],
  });
  running.logLines.length = 0;
  const { logs } = running.useCases;
  const { read: readLog } = logs;
  // oxlint-disable-next-line require-yield -- it is gone before the first line
  (logs as { read: unknown }).read = async function* (): AsyncGenerator<never> {
    throw new VolantError("not_found", "it was deleted meanwhile");
  };
  assert.deepEqual(await refused(client, "vms_logs", { name: "talks" }), {
    error: "it was deleted meanwhile",
    code: "not_found",
  });
  (logs as { read: unknown }).read = readLog;
  await client.close();
  await running.useCases.vms.delete("talks");
});

test("tools are behind the gates of all routes: the key, Host and Origin", async () => {
  const locked = await runApi({ apiKey: "a-secret-key" });
  await assert.rejects(connected(locked.address), /401|Unauthorized|key/i);
  await assert.rejects(connected(locked.address, {}, { "x-volant-api-key": "wrong" }));
  const client = await connected(locked.address, {}, { "x-volant-api-key": "a-secret-key" });
  assert.equal((await called(client, "system_summary"))["total_vms"], 0);
  await client.close();
  const foreign = await sendJson(base, "/mcp", {}, "POST");
  assert.notEqual(foreign.status, 403);
  const options = { method: "POST", body: "{}", headers: { "content-type": "application/json" } };
  for (const headers of [{ host: "evil.example" }, { origin: "http://evil.example" }]) {
    const answer = await rawRequest(base, "/mcp", { ...options, headers: { ...options.headers, ...headers } });
    assert.equal(answer.status, 403, JSON.stringify(headers));
  }
  await locked.api.close();
  assert.deepEqual(locked.errors, []);
});

for (const [generation, options] of GENERATIONS) {
  // Without sessions, what an older client says of a call in another request is of a call that nobody knows: it has to hang up.
  for (const how of generation === "2025" ? ["left"] : ["given up", "left"]) {
    test(`the protocol of ${generation}: a call that is ${how} by its client ends the program that it runs`, async () => {
      await running.useCases.vms.create({ name: "left" });
      const { exec } = running.useCases.reach;
      const ended = Promise.withResolvers<void>();
      const begun = Promise.withResolvers<void>();
      (running.useCases.reach as { exec: typeof exec }).exec = async (...given) => {
        const stream = await exec(...given);
        stream.once("close", () => ended.resolve());
        begun.resolve();
        return stream;
      };
      const client = await connected(base, options);
      const gone = new AbortController();
      const call = client.callTool(
        { name: "vms_exec", arguments: { name: "left", command: ["wait"], timeout_ms: 600_000 } },
        { signal: gone.signal },
      );
      call.catch(() => {});
      await begun.promise;
      if (how === "left") await client.close();
      else gone.abort();
      await ended.promise;
      (running.useCases.reach as { exec: typeof exec }).exec = exec;
      await client.close();
      await running.useCases.vms.delete("left");
    });
  }
}

test("what is no message of the protocol is refused, and no session is there to be read or ended", async () => {
  const nonsense = await sendJson(base, "/mcp", { hello: 1 }, "POST");
  assert.equal(nonsense.status, 400);
  for (const method of ["GET", "DELETE"]) assert.equal((await rawRequest(base, "/mcp", { method })).status, 405);
});

test("the v1 envelope: commands by v1's names and by the tools', with the answers of their routes", async () => {
  const command = async (name: string, params?: object) => {
    const answer = await sendJson(base, "/api/v1/mcp", { command: name, ...(params === undefined ? {} : { params }) });
    assert.equal(answer.status, 200, answer.text);
    return checkSchema(McpCommandResult, answer.json, "answer");
  };
  const made = await command("volant.vms.create", { name: "v1" });
  assert.equal(made.command, "volant.vms.create");
  checkSchema(Vm, made.result, "VM");
  for (const name of ["volant.vms.list", "volar.vms.list", "vms.list", "vms_list"]) {
    const { result } = await command(name, {});
    assert.deepEqual(
      (result as Vm[]).map((vm) => vm.name),
      ["v1"],
      name,
    );
  }
  assert.deepEqual(await command("vms.delete", { name: "v1" }), { command: "volant.vms.delete", result: null });
  const { result } = await command("volant.system.get_capabilities");
  const { capabilities } = result as { capabilities: { name: string; description: string; params: object }[] };
  assert.deepEqual(capabilities.map(({ name }) => name).slice(0, 3), [
    "volant.system.summary",
    "volant.system.info",
    "volant.vms.list",
  ]);
});

test("the v1 envelope refuses as the API does: an unknown command with the names of those that there are", async () => {
  const refusal = async (body: unknown, path = "/api/v1/mcp") => {
    const answer = await sendJson(base, path, body as object);
    return { status: answer.status, ...checkSchema(ErrorBody, answer.json, "answer") };
  };
  const unknown = await refusal({ command: "volant.vms.fly" });
  assert.deepEqual([unknown.status, unknown.code], [400, "invalid"]);
  assert.match(unknown.error, /no command "volant.vms.fly"/);
  assert.match(unknown.hint ?? "", /volant\.vms\.list, .*volant\.system\.get_capabilities/);
  assert.deepEqual((await refusal({ command: "vms.get", params: { name: "none" } })).status, 404);
  assert.match((await refusal({ command: "vms.get", params: {} })).error, /arguments of vms_get lacks "name"/);
  assert.match((await refusal({ params: {} })).error, /lacks "command"/);
  assert.match((await refusal({ command: "vms.list" }, "/api/v1/mcp?x=1")).error, /unknown field "x"/);
  // In v1 the runtime named what to run.
  const v1 = await refusal({ command: "volant.vms.create", params: { name: "b", runtime: "browser" } });
  assert.match(v1.error, /plugin "browser"/);
});
