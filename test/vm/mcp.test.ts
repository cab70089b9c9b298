/** Tools of the Model Context Protocol on a real guest, over HTTP and over stdio, with the protocol's own client. */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { Client, StreamableHTTPClientTransport, type Transport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { enterOwnNamespace } from "../namespace.ts";
import { type House, openHouse, testedPrograms } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

/** A guest boots within one call. */
const CALL_LIMIT_MS = 180_000;
let house: House;

before(async () => {
  house = await openHouse();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  const workload = {
    type: "http",
    base_url: "http://127.0.0.1:80",
    entrypoint: ["/bin/sh", "-c", "echo the workload speaks; exec busybox httpd -f -p 80 -h /www"],
  };
  await house.volarDone("plugins", "install", buildProbePlugin(directory, { workload }));
});
after(() => house?.close());

const TRANSPORTS: Readonly<Record<string, () => Transport>> = {
  http: () => new StreamableHTTPClientTransport(new URL("http://127.0.0.1:7777/mcp")),
  stdio: () =>
    new StdioClientTransport({
      command: join(testedPrograms, "volar"),
      args: ["mcp"],
      env: Object.fromEntries(Object.entries(house.environment).map(([name, value]) => [name, value ?? ""])),
    }),
};

for (const [name, open] of Object.entries(TRANSPORTS)) {
  test(`over ${name}, a tool creates a VM and waits until it runs; others run programs in it, read its log and its console, and delete it`, async () => {
    const client = new Client({ name: "a-test", version: "1.0.0" });
    await client.connect(open());
    async function call(tool: string, given: Record<string, unknown>): Promise<Record<string, unknown>> {
      const options = { timeout: CALL_LIMIT_MS };
      const { structuredContent } = await client.callTool({ name: tool, arguments: { name, ...given } }, options);
      return structuredContent as Record<string, unknown>;
    }
    const exec = (command: string, given: object = {}) =>
      call("vms_exec", { command: ["sh", "-c", command], timeout_ms: 60_000, ...given });
    const quiet = { stdout: "", stderr: "", timed_out: false, truncated: false };

    const vm = await call("vms_create", { plugin: "probe", wait: "2m" });
    assert.equal(vm["status"], "running", JSON.stringify(vm));
    const told = await exec('busybox cat; echo "$A $(busybox pwd)"; echo wrong >&2; exit 3', {
      stdin: "given\n",
      env: { A: "b" },
      cwd: "/www",
    });
    assert.deepEqual(told, { ...quiet, exit_code: 3, stdout: "given\nb /www\n", stderr: "wrong\n" });
    assert.deepEqual(await exec("kill -9 $$"), { ...quiet, signal: 9 });
    const flood = await exec("busybox yes", { timeout_ms: 2000, max_output_bytes: 4 });
    assert.deepEqual(flood, { ...quiet, stdout: "y\ny\n", timed_out: true, truncated: true });
    const left = await exec("busybox ps | busybox grep -c '[y]es'");
    assert.equal(left["stdout"], "0\n", "a program whose time was up is gone");
    const missing = await call("vms_exec", { command: ["no-such-program"] });
    assert.deepEqual([missing["code"], missing["exit_code"]], ["not_found", undefined]);

    const { lines } = await call("vms_logs", {});
    assert.ok(
      (lines as { line: string }[]).some(({ line }) => line === "the workload speaks"),
      JSON.stringify(lines),
    );
    const console = await call("vms_console", { lines: 1000 });
    assert.ok((console["lines"] as string[]).length > 0, JSON.stringify(console));
    assert.deepEqual(await call("vms_delete", {}), { done: true });
    assert.equal((await call("vms_get", {}))["code"], "not_found");
    await client.close();
  });
}
