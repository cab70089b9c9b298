import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { performServerHandshake, type ServerHttp2Session } from "node:http2";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { VolantError } from "@volant/contract";
import { DataLink, type DataTransport, transportText } from "./data-link.ts";
import { SyncScanner, syncLine } from "./stream-sync.ts";

const NONCE = "0123456789abcdef0123456789abcdef";
const agent = { version: "0", protocol: 1, kernel: "6", bootId: "b", vsockPort: 1000 };

/** A guest's device and the agent behind it, on a Unix socket. */
class FakeTransport implements DataTransport {
  #held = false;
  /** How often anyone asked whether it is held. */
  asked = 0;
  failure: string | undefined;
  /** Greets, and never speaks HTTP/2. */
  mute = false;
  /** The nonce that the agent knows. */
  nonce = NONCE;
  readonly ports: number[] = [];
  readonly ends: Socket[] = [];
  readonly sessions: ServerHttp2Session[] = [];
  readonly #directory = mkdtempSync(join(tmpdir(), "data-link-"));
  readonly #server = createServer((guest) => this.#attend(guest));

  get held(): boolean {
    this.asked += 1;
    return this.#held;
  }

  set held(held: boolean) {
    this.#held = held;
  }

  async trouble(): Promise<string | undefined> {
    return this.failure;
  }

  async connect(port: number): Promise<Socket> {
    if (this.failure !== undefined) throw new VolantError("not_ready", this.failure);
    const path = join(this.#directory, "socket");
    if (!this.#server.listening) {
      this.#server.listen(path);
      await once(this.#server, "listening");
    }
    this.ports.push(port);
    const socket = createConnection(path);
    await once(socket, "connect");
    return socket;
  }

  whenRunning(action: () => void): void {
    action();
  }

  #attend(guest: Socket): void {
    this.ends.push(guest);
    guest.on("error", () => {});
    const scanner = new SyncScanner(this.nonce);
    guest.write(syncLine(this.nonce));
    const onData = (bytes: Buffer) => {
      const used = scanner.feed(bytes);
      if (used === undefined || this.mute) return;
      guest.off("data", onData).pause();
      guest.unshift(bytes.subarray(used));
      const http = performServerHandshake(guest);
      http.on("error", () => {});
      http.on("stream", (stream) => {
        stream.on("error", () => {});
        stream.respond({ ":status": 200 });
        stream.write("over vsock");
      });
      this.sessions.push(http);
    };
    guest.on("data", onData);
  }

  close(): void {
    for (const end of this.ends) end.destroy();
    this.#server.close();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

function start(context: TestContext, transport: FakeTransport | undefined, heartbeatMs = 5000) {
  const news = new EventEmitter<{ change: [] }>();
  const link = new DataLink({ transport, heartbeatMs, onChange: () => news.emit("change") });
  // Nothing here is a handle that would keep the process alive.
  const alive = setInterval(() => {}, 60_000);
  context.after(() => {
    clearInterval(alive);
    link.end();
    transport?.close();
  });
  return { link, news };
}

test("a session's data connection stands once both have shown its nonce, and streams go over it", async (context) => {
  const transport = new FakeTransport();
  const { link, news } = start(context, transport);
  assert.deepEqual(link.state, { name: "virtio-serial" });
  link.begin(agent, NONCE);
  await once(news, "change");
  assert.deepEqual([link.state, transport.ports], [{ name: "vsock" }, [1000]]);
  const stream = link.http?.request({ ":path": "/v1/exec" });
  assert.ok(stream !== undefined);
  stream.on("error", () => {});
  const [bytes] = (await once(stream, "data")) as [Buffer];
  assert.equal(bytes.toString(), "over vsock");
});

test("an agent that does not listen, and a guest that has no device, are told of or not worth a word", async (context) => {
  const silent = start(context, new FakeTransport());
  const { vsockPort: _, ...older } = agent;
  silent.link.begin(older, NONCE);
  await once(silent.news, "change");
  assert.deepEqual(silent.link.state, { name: "virtio-serial", reason: "its agent does not listen on vsock" });
  const none = start(context, undefined);
  none.link.begin(agent, NONCE);
  assert.deepEqual([none.link.http, none.link.state], [undefined, { name: "virtio-serial" }]);
  assert.equal(transportText(none.link.state), undefined);
});

test("a connection that breaks is off at once, and its streams with an error; where the device has failed the reason is told and nothing is tried again", async (context) => {
  const transport = new FakeTransport();
  const { link, news } = start(context, transport);
  link.begin(agent, NONCE);
  await once(news, "change");
  const stream = link.http?.request({ ":path": "/v1/exec" });
  assert.ok(stream !== undefined);
  await once(stream, "data");
  const broken = once(stream.resume(), "error");
  transport.failure = "its vhost-device-vsock has ended";
  const changed = once(news, "change");
  transport.ends[0]?.destroy();
  await Promise.all([changed, broken]);
  assert.equal(link.http, undefined);
  assert.equal(transportText(link.state), "its data goes over virtio-serial: its vhost-device-vsock has ended");
  assert.equal(transport.ports.length, 1);
});

test("a connection that breaks though the device is well is made again", async (context) => {
  const transport = new FakeTransport();
  const { link, news } = start(context, transport);
  link.begin(agent, NONCE);
  await once(news, "change");
  transport.ends[0]?.destroy();
  await once(news, "change");
  assert.equal(link.state.name, "virtio-serial");
  await once(news, "change");
  assert.deepEqual([link.state, transport.ports], [{ name: "vsock" }, [1000, 1000]]);
});

test("whoever does not know the nonce is never spoken to", async (context) => {
  const transport = new FakeTransport();
  transport.nonce = "f".repeat(32);
  const { link } = start(context, transport);
  link.begin(agent, NONCE);
  while (transport.ends.length === 0) await new Promise(setImmediate);
  const heard: Buffer[] = [];
  transport.ends[0]?.on("data", (bytes: Buffer) => heard.push(bytes));
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  assert.deepEqual([heard, link.http], [[], undefined]);
});

test("a silent connection is given up, and one of a paused VM is not", async (context) => {
  const transport = new FakeTransport();
  transport.mute = true;
  transport.held = true;
  const { link, news } = start(context, transport, 10);
  link.begin(agent, NONCE);
  await once(news, "change");
  assert.equal(link.http, undefined);
  const silent = once(news, "change");
  for (const beats = transport.asked; transport.asked < beats + 5;) await new Promise(setImmediate);
  assert.equal(link.state.name, "vsock");
  transport.held = false;
  await silent;
  assert.deepEqual(link.state, { name: "virtio-serial", reason: "its agent does not answer over vsock" });
});

test("with its session the connection ends, without a word", async (context) => {
  const transport = new FakeTransport();
  const { link, news } = start(context, transport);
  link.begin(agent, NONCE);
  await once(news, "change");
  let told = false;
  news.once("change", () => (told = true));
  const closed = once(transport.ends[0] as Socket, "close");
  link.end();
  await closed;
  assert.deepEqual([told, link.http, link.state], [false, undefined, { name: "virtio-serial" }]);
});
