/** The README's first command, as a user types it. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import test from "node:test";
import { enterOwnNamespace, ip } from "../namespace.ts";
import { PATIENCE_MS, fetchInTime, within } from "../patience.ts";
import { findProcesses, root, runProgram } from "./house.ts";

enterOwnNamespace(import.meta.url);

interface HostState {
  readonly links: string;
  readonly addresses: string;
  readonly rules: string;
  readonly forwarding: string;
  readonly stateFolders: readonly string[];
  readonly hypervisors: readonly number[];
  readonly recorded: boolean;
}

/** What `npm start` changes on a host, and must leave as it was. */
async function hostState(): Promise<HostState> {
  return {
    links: ip("-o", "link", "show"),
    addresses: ip("-o", "addr", "show"),
    rules: (await runProgram("nft", ["list", "ruleset"])).stdout,
    forwarding: readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8"),
    stateFolders: readdirSync("/run").filter((name) => name.startsWith("volant-start-")),
    hypervisors: findProcesses("guest=volant:").filter(sharesNamespace),
    recorded: existsSync(join(root, ".cache/volant/setup.json")),
  };
}

/** Whether a process is in this test's network namespace: others on the machine are none of its business. */
function sharesNamespace(pid: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`) === readlinkSync("/proc/self/ns/net");
  } catch {
    return false;
  }
}

test("npm start -- --once shows the VM's own page, exits 0 and leaves the host as it was", async () => {
  const before = await hostState();
  const result = await runProgram("npm", ["start", "--", "--once"]);
  assert.equal(result.code, 0, result.stdout + result.stderr);
  assert.match(result.stdout, /<h1>Hello from hello<\/h1>/);
  assert.match(result.stdout, /<p>address: 192\.168\.127\.2\/24<\/p>/);
  assert.match(result.stdout, /<p>kernel: Linux \S+-cloud-amd64<\/p>/);
  assert.deepEqual(await hostState(), before);
});

/** Starts `npm start` and resolves once it says that the page is there and it waits. */
async function startAndWait(): Promise<{ readonly child: ChildProcess; readonly said: string[] }> {
  // Its own session, as a terminal would give it: the test signals the whole group, as Ctrl-C does.
  const child = spawn("npm", ["start"], { cwd: root, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  const said: string[] = [];
  const ready = new Promise<void>((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`npm start ended with exit code ${code}: ${said.join("\n")}`)));
    createInterface({ input: child.stderr }).on("line", (line) => said.push(line));
    createInterface({ input: child.stdout }).on("line", (line) => {
      said.push(line);
      if (line.includes("Ctrl-C stops the VM")) resolve();
    });
  });
  await within(ready, "npm start that waits for Ctrl-C", () => said.join("\n"), 3 * PATIENCE_MS);
  return { child, said };
}

test("Ctrl-C in npm start deletes the VM, also one that the user made, and undoes everything", async () => {
  const before = await hostState();
  const { child, said } = await startAndWait();
  assert.equal((await fetchInTime("http://192.168.127.2/")).status, 200);
  const second = await runProgram(join(root, "bin/volar"), ["vms", "create", "second", "--plugin", "hello", "--wait"]);
  assert.equal(second.code, 0, second.stderr);
  const kernel = await runProgram(join(root, "bin/volar"), ["vms", "exec", "second", "--", "uname", "-r"]);
  assert.match(kernel.stdout, /-cloud-amd64$/m, "the README's own example");
  const ended = once(child, "exit");
  assert.ok(child.pid !== undefined);
  process.kill(-child.pid, "SIGINT");
  await within(ended, "the end of npm start", () => said.join("\n"));
  assert.ok(said.includes("Taking everything down again."), said.join("\n"));
  assert.deepEqual(await hostState(), before);
});
