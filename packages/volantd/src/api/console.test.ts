/** A serial console over both of its ways, against a Unix socket that behaves as QEMU's: one connection at a time. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { request, type IncomingMessage } from "node:http";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { WebSocket } from "ws";
import { until } from "../../../../test/patience.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

const directory = mkdtempSync(join(tmpdir(), "console-"));
const path = join(directory, "serial");
const ports: Socket[] = [];
const qemu = createServer((socket) => {
  socket.on("error", () => {});
  ports.push(socket);
});
let running: RunningApi;

before(async () => {
  qemu.listen(path);
  await once(qemu, "listening");
  running = await runApi({ apiKey: "k" });
  const { id } = await running.useCases.vms.create({ name: "web" });
  running.serials.set(id, path);
  await running.useCases.vms.create({ name: "away" });
  await running.useCases.vms.create({ name: "off" });
  running.move("off", "stopped");
});
after(async () => {
  await running.api.close();
  qemu.close();
  rmSync(directory, { recursive: true });
  assert.deepEqual(running.errors, []);
});

const headers = { "x-volant-api-key": "k" };
const webSocket = (name: string, given: object = { headers }, query = "") =>
  new WebSocket(`${running.address.replace("http", "ws")}/ws/v1/vms/${name}/console${query}`, given);

async function opened(client: WebSocket): Promise<WebSocket> {
  await once(client, "open");
  return client;
}

/** A console over an upgrade. */
async function stream(name: string): Promise<Duplex> {
  const outgoing = request(`${running.address}/api/v1/vms/${name}/console`, {
    method: "POST",
    agent: false,
    headers: { ...headers, connection: "Upgrade", upgrade: "volant-stream" },
  }).end();
  const [, socket] = (await once(outgoing, "upgrade")) as [IncomingMessage, Duplex];
  return socket;
}

/** The connection to the serial port that was made last, once there is one. */
async function port(): Promise<Socket> {
  await until("the serial port is connected", () => ports.length > 0);
  const socket = ports.at(-1);
  assert.ok(socket !== undefined);
  return socket;
}

/** Waits until a connection to the serial port is closed. */
async function letGo(serial: Socket): Promise<void> {
  // Only who reads is told of the end.
  serial.resume();
  await until("the serial port is let go of", () => serial.destroyed);
  ports.length = 0;
}

test("what the guest prints reaches everybody on its console, and what each types reaches the guest, over one connection", async () => {
  const client = await opened(webSocket("web"));
  const serial = await port();
  const other = await stream("web");
  const bytes = Buffer.from([0, 255, 27, 10]);
  const seen = once(client, "message") as Promise<[Buffer, boolean]>;
  const read = once(other, "data") as Promise<[Buffer]>;
  serial.write(bytes);
  assert.deepEqual(await seen, [bytes, true]);
  assert.deepEqual((await read)[0], bytes);
  client.send(Buffer.from("ls\r"));
  assert.equal(String((await once(serial, "data"))[0]), "ls\r");
  client.send("text");
  assert.equal(String((await once(serial, "data"))[0]), "text");
  other.write("more");
  assert.equal(String((await once(serial, "data"))[0]), "more");
  assert.equal(ports.length, 1);
  client.close();
  other.destroy();
  await letGo(serial);
});

test("a console ends when the hypervisor does, and the next one is a new connection", async () => {
  const client = await opened(webSocket("web"));
  const other = await stream("web");
  const serial = await port();
  const closed = once(client, "close");
  serial.end("power off\r\n");
  assert.equal(await text(other), "power off\r\n");
  assert.equal((await closed)[0], 1000);
  other.destroy();
  ports.length = 0;
  const again = await opened(webSocket("web"));
  const fresh = await port();
  assert.notEqual(fresh, serial);
  again.close();
  await letGo(fresh);
});

test("one that does not read is cut off, and neither the guest nor the others wait for it", async () => {
  const lazy = await opened(webSocket("web"));
  lazy.pause();
  const eager = await opened(webSocket("web"));
  let bytes = 0;
  eager.on("message", (data: Buffer) => (bytes += data.length));
  const serial = await port();
  const piece = Buffer.alloc(256 * 1024, 120);
  const goal = 64 * 1024 * 1024;
  for (let sent = 0; sent < goal; sent += piece.length) if (!serial.write(piece)) await once(serial, "drain");
  await until("all of it is read", () => bytes === goal);
  const closed = once(lazy, "close") as Promise<[number, Buffer]>;
  lazy.resume();
  const [code, reason] = await closed;
  assert.equal(code, 1013);
  assert.match(String(reason), /cut off/);
  eager.close();
  await letGo(serial);
});

test("a console passes the gates of every request, and what has none is refused", async () => {
  const refused = async (client: WebSocket): Promise<number> => {
    client.on("error", () => {});
    const [, answer] = (await once(client, "unexpected-response")) as [unknown, { statusCode: number }];
    client.terminate();
    return answer.statusCode;
  };
  assert.equal(await refused(webSocket("web", {})), 401);
  assert.equal(await refused(webSocket("web", { headers: { ...headers, origin: "http://evil.example" } })), 403);
  assert.equal(await refused(webSocket("web", { headers }, "?tail=1")), 400);
  assert.equal(await refused(webSocket("none")), 404);
  assert.equal(await refused(webSocket("off")), 409);
  assert.equal(await refused(webSocket("away")), 502);
  assert.equal(ports.length, 0);
});

test("a browser gives the key as a subprotocol; a handshake that comes to nothing leaves no connection behind", async () => {
  const protocols = ["volant.v1", `volant.key.${Buffer.from("k").toString("base64url")}`];
  const target = `${running.address.replace("http", "ws")}/ws/v1/vms/web/console`;
  const client = await opened(new WebSocket(target, protocols));
  assert.equal(client.protocol, "volant.v1");
  const serial = await port();
  client.close();
  await letGo(serial);
  const broken = request(target.replace("ws:", "http:"), {
    agent: false,
    headers: { ...headers, connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13" },
  }).end();
  const [answer] = (await once(broken, "response")) as [IncomingMessage];
  assert.equal(answer.statusCode, 400);
  answer.resume();
  for (const socket of ports) await letGo(socket);
});
