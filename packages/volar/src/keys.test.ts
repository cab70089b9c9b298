/** `volar keys` and the Unix socket as a user runs them, against a real API. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";
import { apiAddress } from "./api-address.ts";

const entry = join(import.meta.dirname, "main.ts");
let directory: string;
let running: RunningApi;

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "volar-keys-"));
  running = await runApi({ socketPath: join(directory, "api.sock") });
});
after(async () => {
  await running.api.close();
  rmSync(directory, { recursive: true, force: true });
  assert.deepEqual(running.errors, []);
});

interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** volar on this host, where the socket is. */
async function volar(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Finished> {
  const own = { PATH: process.env["PATH"], HOME: directory, VOLANT_RUNTIME_DIR: directory };
  const child = spawn(process.execPath, [entry, ...args], { env: { ...own, ...env } });
  child.stdin.end();
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, stdout, stderr };
}

test("root makes a key over the socket, which is used over TCP as far as its scope goes, until it is revoked", async () => {
  const made = await volar(["keys", "create", "watcher", "--scope", "read"]);
  assert.deepEqual([made.code, made.stderr], [0, ""]);
  const key = made.stdout.trim();
  assert.match(key, /^volant_[A-Za-z0-9_-]{43}$/);
  const overTcp = (...args: string[]) => volar(args, { VOLANT_API_BASE: running.address, VOLANT_API_KEY: key });
  assert.equal((await overTcp("vms", "list")).code, 0);
  const refused = await overTcp("vms", "create", "web");
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /needs a key with the scope operate, and "watcher" has read/);
  const listed = await volar(["keys", "list"]);
  assert.match(listed.stdout, /^NAME +SCOPE +CREATED +LAST USED\nwatcher +read +\S+ +20\S+\n$/);
  assert.ok(!listed.stdout.includes(key));
  assert.equal((await volar(["keys", "revoke", "watcher"])).stdout, "watcher revoked\n");
  await running.useCases.keys.create({ name: "other", scope: "admin" });
  assert.match((await overTcp("vms", "list")).stderr, /the API key is wrong/);
  assert.match((await volar(["keys", "revoke", "none"])).stderr, /there is no API key named "none"/);
  running.useCases.keys.revoke("other");
});

test("a scope that there is not, and none at all, are usage errors", async () => {
  assert.equal((await volar(["keys", "create", "x", "--scope", "all"])).code, 2);
  assert.equal((await volar(["keys", "create", "x"])).code, 2);
});

test("the address is what was given, else the socket that this user may open, else loopback", () => {
  const env = { VOLANT_RUNTIME_DIR: directory };
  const socket = `unix:${join(directory, "api.sock")}`;
  assert.equal(apiAddress(undefined, env), socket);
  assert.equal(apiAddress("http://host:1", env), "http://host:1");
  assert.equal(apiAddress(undefined, { ...env, VOLANT_API_BASE: "http://host:2" }), "http://host:2");
  assert.equal(apiAddress(undefined, { ...env, VOLANT_API_SOCKET: "off" }), "http://127.0.0.1:7777");
  assert.equal(apiAddress(undefined, { VOLANT_RUNTIME_DIR: join(directory, "none") }), "http://127.0.0.1:7777");
  assert.equal(apiAddress(undefined, { VOLANT_API_SOCKET: socket.slice("unix:".length) }), socket);
});
