import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import test from "node:test";
import { promisify } from "node:util";
import { runSetup, undoSetup } from "@volant/host";
import { enterOwnNamespace, ip } from "../namespace.ts";
import { eventOf } from "../patience.ts";
import { run, scratchSetup } from "./setup-state.ts";

enterOwnNamespace(import.meta.url);

const runFile = promisify(execFile);

/** Answers each request with the address that it came from. */
const SERVER = `
  require("node:http")
    .createServer((request, response) => response.end(request.socket.remoteAddress))
    .listen(8080, "0.0.0.0", () => console.log("ready"));`;

/** A program of Node's in a network namespace of its own, which ends with it. */
async function inOwnNamespace(program: string): Promise<ChildProcess & { readonly pid: number }> {
  const child = spawn("unshare", ["--net", process.execPath, "-e", program], { stdio: ["ignore", "pipe", "inherit"] });
  assert.ok(child.stdout !== null && child.pid !== undefined);
  await eventOf(child.stdout, "data", "a program in its namespace");
  return Object.assign(child, { pid: child.pid });
}

function ipIn(pid: number, ...args: string[]): void {
  run("nsenter", "--target", String(pid), "--net", "ip", ...args);
}

/** Joins a namespace to this one: `here` on this side, eth0 with the address over there. */
function connect(pid: number, here: string, address: string): void {
  ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", String(pid));
  ip("link", "set", here, "up");
  ipIn(pid, "link", "set", "lo", "up");
  ipIn(pid, "address", "add", address, "dev", "eth0");
  ipIn(pid, "link", "set", "eth0", "up");
}

const FETCH = `fetch(process.argv[1], { signal: AbortSignal.timeout(2000) })
  .then((response) => response.text()).then(console.log, () => process.exit(7));`;

/** What the guest gets from the address; undefined when nothing answers. */
async function fetchFrom(pid: number, url: string): Promise<string | undefined> {
  const args = ["--target", String(pid), "--net", process.execPath, "-e", FETCH, url];
  try {
    return (await runFile("nsenter", args)).stdout.trim();
  } catch {
    return undefined;
  }
}

/** A set-up, and whatever it says must be done for the chains of others; the guest then reaches the outside world. */
async function reachesOutside(firewall: "iptables" | "nftables", obstacles: number): Promise<void> {
  using scratch = scratchSetup({ firewall });
  const outside = await inOwnNamespace(SERVER);
  const guest = await inOwnNamespace(`console.log("ready"); setInterval(() => {}, 1e6);`);
  try {
    connect(outside.pid, "uplink", "198.51.100.2/24");
    ip("address", "add", "198.51.100.1/24", "dev", "uplink");
    run("iptables", "-P", "FORWARD", "DROP");

    const { notes } = await runSetup(scratch.host, scratch.settings);
    connect(guest.pid, "port", "192.168.127.2/24");
    ip("link", "set", "port", "master", "vbr0");
    ipIn(guest.pid, "route", "add", "default", "via", "192.168.127.1");
    const fixes = notes.flatMap((note) => / drops what guests .*to let them pass: (.*)$/.exec(note)?.[1] ?? []);
    assert.equal(fixes.length, obstacles, notes.join());
    if (obstacles > 0) assert.equal(await fetchFrom(guest.pid, "http://198.51.100.2:8080/"), undefined);
    for (const fix of fixes) run("/bin/sh", "-ec", fix);
    // The outside world knows no way to the guest's subnet: only masquerade brings answers back.
    assert.equal(await fetchFrom(guest.pid, "http://198.51.100.2:8080/"), "198.51.100.1");
    const again = await runSetup(scratch.host, scratch.settings);
    assert.ok(again.notes.every((note) => !note.includes("drops what guests")));

    ip("link", "delete", "port");
    await undoSetup(scratch.host);
    assert.match(run("iptables-save"), /:FORWARD DROP/);
    assert.doesNotMatch(run("nft", "list", "ruleset"), /volant/);
  } finally {
    outside.kill("SIGKILL");
    guest.kill("SIGKILL");
    run("nft", "flush", "ruleset");
  }
}

test("a guest reaches the outside world behind the host's address, through a FORWARD policy of DROP, while set up", () =>
  reachesOutside("iptables", 0));

test("with nftables the policy of DROP is told of, and with the commands that set-up prints the guest is through", () =>
  reachesOutside("nftables", 1));

test("without set-up's rules the same guest reaches nothing: the test above proves something", async () => {
  using scratch = scratchSetup();
  const outside = await inOwnNamespace(SERVER);
  const guest = await inOwnNamespace(`console.log("ready"); setInterval(() => {}, 1e6);`);
  try {
    connect(outside.pid, "uplink", "198.51.100.2/24");
    ip("address", "add", "198.51.100.1/24", "dev", "uplink");
    await runSetup(scratch.host, scratch.settings);
    connect(guest.pid, "port", "192.168.127.2/24");
    ip("link", "set", "port", "master", "vbr0");
    ipIn(guest.pid, "route", "add", "default", "via", "192.168.127.1");
    run("iptables", "-t", "nat", "-F", "POSTROUTING");
    assert.equal(await fetchFrom(guest.pid, "http://198.51.100.2:8080/"), undefined);
    ip("link", "delete", "port");
    await undoSetup(scratch.host);
  } finally {
    outside.kill("SIGKILL");
    guest.kill("SIGKILL");
  }
});
