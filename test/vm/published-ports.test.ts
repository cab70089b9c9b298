/** Ports of guests on the host, in every network mode alike. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import test, { after, before } from "node:test";
import type { Vm, VmPublishedPort } from "@volant/contract";
import { VolantClient } from "@volant/sdk";
import { GuestStreams, type GuestProcess } from "@volant/sdk/node";
import { enterOwnNamespace } from "../namespace.ts";
import { eventOf, fetchInTime, within } from "../patience.ts";
import { type House, openHouse } from "./house.ts";
import { type Lan, LAN_BRIDGE, openLan } from "./lan.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const base = "http://127.0.0.1:7777";
const LOCAL = "127.0.0.1";
const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
let house: House;
let lan: Lan;
let client: VolantClient;

before(async () => {
  house = await openHouse({ env: { VOLANT_LAN_BRIDGES: LAN_BRIDGE } });
  lan = await openLan();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
  client = new VolantClient({ baseUrl: base });
});
after(async () => {
  await house?.close();
  await lan?.close();
});

async function page(port: number, host = LOCAL): Promise<string> {
  return (await fetchInTime(`http://${host}:${port}/`, { headers: { connection: "close" } })).text();
}

async function dial(port: number): Promise<Socket> {
  const socket = connect({ port, host: LOCAL, allowHalfOpen: true });
  await eventOf(socket, "connect", `a connection to port ${port}`);
  return socket;
}

/** The code of the error that a connection ends with; undefined where it ends in good order. */
function outcome(port: number): Promise<string | undefined> {
  const socket = connect({ port, host: LOCAL });
  socket.resume();
  const ended = new Promise<string | undefined>((resolve) => {
    socket.once("error", ({ code }: NodeJS.ErrnoException) => resolve(code));
    socket.once("close", () => resolve(undefined));
  });
  const seen = () => `${socket.readyState}, ${socket.bytesRead} bytes came`;
  return within(ended, `the end of a connection to port ${port}`, seen).finally(() => socket.destroy());
}

/** All that comes until the other end has ended. */
function whole(socket: Socket): Promise<Buffer> {
  return within(buffer(socket), "the end of what a guest sends", () => `${socket.bytesRead} bytes came`);
}

async function published(name: string): Promise<readonly VmPublishedPort[]> {
  return (await client.vms.get(name)).network.published ?? [];
}

/** A program of the guest behind a port, up when this resolves: each connection gets a process of its own. */
async function serveInGuest(vm: string, port: number, command: readonly string[]): Promise<GuestProcess> {
  const streams = new GuestStreams({ baseUrl: base });
  const server = await streams.exec(vm, {
    argv: ["/bin/busybox", "nc", "-ll", "-p", String(port), "-e", "/bin/busybox", ...command],
  });
  server.stdout.resume();
  server.stderr.resume();
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  const wait = `until busybox grep -q ':${hex} ' /proc/net/tcp /proc/net/tcp6; do busybox usleep 50000; done`;
  const waiting = await streams.exec(vm, { argv: ["sh", "-c", wait] });
  waiting.stdout.resume();
  waiting.stderr.resume();
  assert.deepEqual(await within(waiting.exit, `a listener on port ${port} of ${vm}`), { code: 0 });
  return server;
}

test("VMs of all three modes are reached through ports of the host, given or chosen, and the ports are shown", async () => {
  const dnsmasq = await lan.startDnsmasq(join(house.directory, "dnsmasq.leases"));
  const config = join(house.directory, "lan.json");
  writeFileSync(config, JSON.stringify({ network: { mode: "dhcp", bridge: LAN_BRIDGE } }));
  const create = (name: string, ...flags: string[]) =>
    house.volarDone("vms", "create", name, "--plugin", "probe", ...flags);
  await create("bridged", "-p", "8081:80", "-p", "80");
  // Room for a process for each of 200 connections.
  await create("remote", "--network", "vsock", "--memory", "256", "--publish", "0.0.0.0:8082:80", "-p", "9090:9");
  await create("dynamic", "--config", config, "-p", "[::1]:8083:80/tcp");
  // Nobody is there yet to take a connection: it is not kept waiting.
  assert.equal(await outcome(8082), "ECONNRESET");
  for (const name of ["bridged", "remote", "dynamic"]) await house.volarDone("vms", "wait", name);
  const chosen = (await published("bridged"))[1]?.host_port ?? 0;
  for (const port of [8081, chosen, 8082]) assert.equal(await page(port), "probe\n", String(port));
  assert.equal(await page(8082, "192.168.127.1"), "probe\n", "0.0.0.0 is every address of the host");
  assert.equal(await page(8083, "[::1]"), "probe\n");
  await assert.rejects(page(8081, "192.168.127.1"), "loopback alone unless asked for more");
  const list = await house.volarDone("vms", "list");
  assert.match(list, new RegExp(`bridged .* 127\\.0\\.0\\.1:8081->80 127\\.0\\.0\\.1:${chosen}->80\n`));
  assert.match(await house.volarDone("vms", "get", "dynamic"), /^published: +\[::1\]:8083->80$/m);
  await house.volarDone("vms", "delete", "dynamic");
  await dnsmasq.stop();
});

test("in mode bridged and vsock alike: 10 MiB both ways with each direction ending by itself, and a closed port is a reset", async () => {
  await house.volarDone("vms", "publish", "remote", "9000:9000");
  await house.volarDone("vms", "publish", "bridged", "9001:9000");
  for (const [vm, port] of [
    ["remote", 9000],
    ["bridged", 9001],
  ] as const) {
    assert.equal(await outcome(port), "ECONNRESET");
    const server = await serveInGuest(vm, 9000, ["cat"]);
    const body = randomBytes(10 * 1024 * 1024);
    const socket = await dial(port);
    socket.end(body);
    assert.equal(digest(await whole(socket)), digest(body));
    server.close();
  }
  assert.equal(await outcome(9090), "ECONNRESET");
});

/** The connection, once the guest has sent back what it was sent. */
async function greeted(socket: Socket): Promise<Socket> {
  const words = randomBytes(8).toString("hex");
  let answer = "";
  const seen = () => `${socket.readyState}, ${socket.bytesRead} bytes came, "${answer}" of it for this`;
  // In as many parts as the way there makes of it.
  const answered = new Promise<void>((resolve) => {
    const take = (part: Buffer) => {
      answer += part.toString();
      if (answer.length < words.length) return;
      socket.off("data", take);
      resolve();
    };
    socket.on("data", take);
  });
  socket.write(words);
  await within(answered, `the guest's answer to ${words}`, seen);
  assert.equal(answer, words);
  return socket;
}

test("200 connections at once are served, while others stall without being read", async () => {
  const server = await serveInGuest("remote", 9002, ["cat"]);
  await house.volarDone("vms", "publish", "remote", "9002:9002", "9003:9003");
  const talker = await serveInGuest("remote", 9003, ["yes"]);
  // The guest's server lets three connections wait for it: so many come at a time, and all of them stay.
  const stalled: Socket[] = [];
  while (stalled.length < 8) {
    const socket = await dial(9003);
    await eventOf(socket, "readable", `the first bytes of stalled connection ${stalled.length}`);
    stalled.push(socket);
  }
  const sockets: Socket[] = [];
  while (sockets.length < 200) {
    const group = Array.from({ length: Math.min(3, 200 - sockets.length) }, async () => greeted(await dial(9002)));
    sockets.push(...(await Promise.all(group)));
  }
  await Promise.all(sockets.map(greeted));
  // Published ports can't shut out who else reaches for the guest.
  assert.equal(await (await fetchInTime(`${base}/api/v1/vms/remote/agent/`)).text(), "probe\n");
  for (const socket of [...sockets, ...stalled]) socket.destroy();
  server.close();
  talker.close();
});

test("of connections that come faster than a program takes them, each is served or reset: none stands without anybody behind it", async () => {
  const talker = await serveInGuest("remote", 9004, ["echo", "hello"]);
  await house.volarDone("vms", "publish", "remote", "9004:9004");
  const outcomes = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const socket = connect({ port: 9004, host: LOCAL });
      const seen = () => `${socket.readyState}, ${socket.bytesRead} bytes came`;
      const greeting = buffer(socket).then(String, ({ code }: NodeJS.ErrnoException) => code);
      return within(greeting, "a greeting or a reset", seen).finally(() => socket.destroy());
    }),
  );
  assert.deepEqual(
    outcomes.filter((outcome) => outcome !== "hello\n" && outcome !== "ECONNRESET"),
    [],
  );
  assert.ok(outcomes.includes("hello\n"));
  talker.close();
});

test("ports come and go while a VM runs, without a restart; connections of a removed one end", async () => {
  const { pid } = await client.vms.get("bridged");
  const leaving = (await dial(8081)).resume().on("error", () => {});
  const gone = new Promise((resolve) => leaving.once("close", resolve));
  const rest = await house.volarDone("vms", "unpublish", "bridged", "8081", "127.0.0.1:9001");
  await within(gone, "the end of a connection by a removed port", () => leaving.readyState);
  assert.doesNotMatch(rest, /8081|9001/);
  assert.equal(await outcome(8081), "ECONNREFUSED");
  assert.match(await house.volarDone("vms", "publish", "bridged", "8084:80"), /127\.0\.0\.1:8084->80/);
  assert.equal(await page(8084), "probe\n");
  const vm = await client.vms.get("bridged");
  assert.deepEqual([vm.pid, vm.pending_config], [pid, undefined]);
  const unknown = await house.volar("vms", "unpublish", "bridged", "8081");
  assert.equal(unknown.code, 1);
  assert.match(unknown.stderr, /has published no port 8081/);
});

test("a port that is another VM's, another program's, volantd's own or UDP is refused at once, and nothing is left of the attempt", async () => {
  const server = createServer();
  server.listen(8090, LOCAL);
  await eventOf(server, "listening", "a listener");
  for (const [spec, sentence] of [
    ["8084:80", /port 127\.0\.0\.1:8084 of this host is VM "bridged"'s/],
    ["0.0.0.0:8084:80", /is VM "bridged"'s/],
    ["8090:80", /port 127\.0\.0\.1:8090 of this host is in use by another program/],
    ["7777:80", /in use by another program/],
    ["192.0.2.1:8091:80", /192\.0\.2\.1 is no address of this host/],
    ["8091:80/udp", /UDP is not supported yet/],
  ] as const) {
    const created = await house.volar("vms", "create", "late", "--plugin", "probe", "-p", "8092:80", "-p", spec);
    assert.notEqual(created.code, 0, spec);
    assert.match(created.stderr, sentence);
    const changed = await house.volar("vms", "publish", "remote", "8092:80", spec);
    assert.match(changed.stderr, sentence);
    assert.equal(await outcome(8092), "ECONNREFUSED");
  }
  const twice = await house.volar("vms", "create", "late", "--plugin", "probe", "-p", "8092:80", "-p", "8092:81");
  assert.match(twice.stderr, /asked for twice/);
  assert.deepEqual(
    (await house.vms()).map(({ name }) => name),
    ["bridged", "remote"],
  );
  server.close();
});

test("volantd may be killed: the next one listens again on the same ports; one that was taken meanwhile is said, and had back when it is free", async () => {
  const before = await published("bridged");
  await house.stopVolantd("SIGKILL");
  const thief = createServer();
  thief.listen(8084, LOCAL);
  await eventOf(thief, "listening", "a listener");
  await house.startVolantd();
  await house.volarDone("vms", "wait", "bridged");
  const after = await published("bridged");
  assert.deepEqual(
    after.map(({ host_port: port }) => port),
    before.map(({ host_port: port }) => port),
  );
  assert.equal(await page(before[0]?.host_port ?? 0), "probe\n");
  assert.match(await house.volarDone("vms", "list"), /!127\.0\.0\.1:8084->80/);
  assert.match(
    await house.volarDone("vms", "get", "bridged"),
    /8084->80 \(not listening: .* in use by another program\)/,
  );
  const told = new AbortController();
  const events = client.events({ signal: told.signal });
  const back = (async () => {
    for await (const { name, message } of events) {
      if (name === "bridged" && message === "port 127.0.0.1:8084 is listened on") return;
    }
  })();
  thief.close();
  await within(back, "the news that port 8084 is listened on again", () => house.log.slice(-2000));
  told.abort();
  assert.equal(await page(8084), "probe\n");
});

test("a stopped VM keeps its ports, which reset who comes; it is reached again when it runs; a deleted one frees them", async () => {
  await house.volarDone("vms", "stop", "bridged");
  assert.equal(await outcome(8084), "ECONNRESET");
  const taken = await house.volar("vms", "create", "late", "--plugin", "probe", "-p", "8084:80");
  assert.match(taken.stderr, /is VM "bridged"'s/);
  await house.volarDone("vms", "start", "bridged", "--wait");
  assert.equal(await page(8084), "probe\n");
  await house.volarDone("vms", "delete", "bridged");
  assert.equal(await outcome(8084), "ECONNREFUSED");
  const heir = await house.volarJson<Vm>("vms", "create", "heir", "--plugin", "probe", "-p", "8084:80", "--wait");
  assert.equal(heir.network.published?.[0]?.listening, true);
  assert.equal(await page(8084), "probe\n");
});
