/** `volar mcp` as a client starts it, with the protocol's own client, against a real API over loopback. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test, { after, before } from "node:test";
import { Client, type ClientOptions } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import type { Vm } from "@volant/contract";
import { TOOLS } from "@volant/mcp";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";

const entry = join(import.meta.dirname, "main.ts");
let running: RunningApi;

before(async () => {
  running = await runApi({ apiKey: "k" });
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

interface Session {
  readonly client: Client;
  call(name: string, given?: Record<string, unknown>): Promise<Record<string, unknown>>;
}

async function begin(env: Readonly<Record<string, string>> = {}, options: ClientOptions = {}): Promise<Session> {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [entry, "mcp"],
    env: { PATH: process.env["PATH"] ?? "", VOLANT_API_BASE: running.address, VOLANT_API_KEY: "k", ...env },
    stderr: "pipe",
  });
  const client = new Client({ name: "a-test", version: "1.0.0" }, options);
  await client.connect(transport);
  async function call(name: string, given: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    const { structuredContent, isError } = await client.callTool({ name, arguments: given });
    return { ...(structuredContent as Record<string, unknown>), ...(isError === true ? { isError } : {}) };
  }
  return { client, call };
}

const GENERATIONS: readonly (readonly [string, ClientOptions])[] = [
  ["2025", {}],
  ["2026", { versionNegotiation: { mode: "auto" } }],
];

for (const [generation, options] of GENERATIONS) {
  test(`over stdio, in the protocol of ${generation}, the tools are those of volantd, and a VM's life goes by them`, async () => {
    const { client, call } = await begin({}, options);
    assert.equal(client.getNegotiatedProtocolVersion()?.slice(0, 4), generation);
    const { tools } = await client.listTools();
    assert.deepEqual(
      tools.map(({ name, inputSchema }) => [name, inputSchema]),
      TOOLS.map(({ name, input }) => [name, JSON.parse(JSON.stringify(input))]),
    );
    assert.equal((await call("vms_create", { name: "web", config: { env: { A: "1" } } }))["name"], "web");
    const { vms, total } = await call("vms_list", { status: ["pending"], limit: 1 });
    assert.deepEqual([(vms as Vm[]).map(({ name }) => name), total], [["web"], 1]);
    assert.deepEqual(await call("vms_exec", { name: "web", command: ["echo", "hi"] }), {
      exit_code: 0,
      stdout: "hi\n",
      stderr: "",
      timed_out: false,
      truncated: false,
    });
    running.logLines.push({ name: "web", stream: "stdout", line: "hello", timestamp: "2026-01-01T00:00:00.000Z" });
    const { lines } = await call("vms_logs", { name: "web" });
    assert.deepEqual(
      (lines as { line: string }[]).map(({ line }) => line),
      ["hello"],
    );
    running.logLines.length = 0;
    assert.deepEqual((await call("vms_console", { name: "web" }))["name"], "web");
    assert.deepEqual(await call("vms_delete", { name: "web" }), { done: true });
    const refusal = await call("vms_get", { name: "web" });
    assert.deepEqual([refusal["code"], refusal["isError"]], ["not_found", true]);
    await client.close();
  });
}

test("over stdio a wrong key, and a volantd that is not there, are told by each call, and not by silence", async () => {
  const wrong = await begin({ VOLANT_API_KEY: "wrong" });
  assert.deepEqual((await wrong.call("system_summary"))["code"], "unauthorized");
  await wrong.client.close();
  const nobody = await begin({ VOLANT_API_BASE: "http://127.0.0.1:9" });
  const { code, error } = await nobody.call("system_summary");
  assert.equal(code, "not_ready");
  assert.match(String(error), /does not answer at http:\/\/127\.0\.0\.1:9/);
  await nobody.client.close();
});

test("volar mcp writes nothing but messages on standard output, and ends with 0 when its client closes the connection", async () => {
  const child = spawn(process.execPath, [entry, "mcp"], {
    env: { PATH: process.env["PATH"], VOLANT_API_BASE: running.address, VOLANT_API_KEY: "k" },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const params = { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "a-test", version: "1" } };
  child.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", id: 1, method: "initialize", params })}\n`);
  const { value } = await lines.next();
  const { result } = JSON.parse(String(value)) as { result: { serverInfo: { name: string }; instructions: string } };
  assert.equal(result.serverInfo.name, "volant");
  assert.match(result.instructions, /plugins_list/);
  child.stdin.end();
  assert.deepEqual(await ended, [0, null]);
  assert.equal((await lines.next()).done, true);
});
