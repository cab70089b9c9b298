import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { VsockGate, type VsockGateOptions } from "./gate.ts";
import { RunState } from "./run-state.ts";

const never = new AbortController().signal;

/** Plays vhost-device-vsock: takes connections, and answers when the test says so. */
class FakeBackend {
  readonly path: string;
  readonly run = new RunState();
  readonly #server: Server;
  readonly #waiting: Socket[] = [];
  connections = 0;

  constructor(directory: string) {
    this.path = join(directory, "data");
    this.#server = createServer((socket) => {
      this.connections += 1;
      socket.on("error", () => {});
      this.#waiting.push(socket);
      this.#server.emit("waiting");
    });
  }

  async listen(): Promise<void> {
    this.#server.listen(this.path);
    await once(this.#server, "listening");
  }

  /** The next connection, once its request has come, whole. */
  async asked(): Promise<{ readonly socket: Socket; readonly request: string }> {
    while (this.#waiting.length === 0) await once(this.#server, "waiting");
    const socket = this.#waiting.shift() as Socket;
    const [request] = (await once(socket, "data")) as [Buffer];
    return { socket, request: request.toString() };
  }

  close(): void {
    this.#server.close();
  }
}

async function start(context: TestContext, options: Partial<VsockGateOptions> = {}) {
  const directory = mkdtempSync(join(tmpdir(), "vsock-gate-"));
  const backend = new FakeBackend(directory);
  await backend.listen();
  const gate = new VsockGate({ path: backend.path, run: backend.run, trouble: async () => undefined, ...options });
  context.after(() => {
    backend.close();
    rmSync(directory, { recursive: true, force: true });
  });
  return { backend, gate };
}

test("a connection is asked for in one line, nothing is sent before OK, and what comes with OK is not lost", async (context) => {
  const { backend, gate } = await start(context);
  const connecting = gate.connect(1000, never);
  const { socket, request } = await backend.asked();
  assert.equal(request, "CONNECT 1000\n");
  socket.write("OK ");
  socket.write("1000\nfirst");
  const stream = (await connecting).resume();
  const [first] = (await once(stream, "data")) as [Buffer];
  assert.equal(first.toString(), "first");
  stream.write("and back");
  const [back] = (await once(socket, "data")) as [Buffer];
  assert.equal(back.toString(), "and back");
  const closed = once(stream, "close");
  socket.destroy();
  await closed;
});

test("whoever gives up before OK leaves the connection open until it is answered, and no other is asked for meanwhile", async (context) => {
  const { backend, gate } = await start(context);
  const abort = new AbortController();
  const connecting = gate.connect(1000, abort.signal);
  const { socket } = await backend.asked();
  let closed = false;
  const closing = once(socket, "close").then(() => (closed = true));
  abort.abort(new Error("changed my mind"));
  await assert.rejects(connecting, /changed my mind/);
  await assert.rejects(gate.connect(1000, never), /vsock device does not answer/);
  assert.deepEqual([backend.connections, closed], [1, false]);
  socket.write("OK 1000\n");
  await closing;
  const next = gate.connect(1000, never);
  (await backend.asked()).socket.write("OK 1000\n");
  (await next).destroy();
});

test("a device that never answers is given up after a while, and its connection is kept all the same", async (context) => {
  const { backend, gate } = await start(context, { answerTimeoutMs: 20 });
  const connecting = gate.connect(1000, never);
  const { socket } = await backend.asked();
  await assert.rejects(connecting, { code: "not_ready", message: /does not answer/ });
  assert.equal(socket.destroyed, false);
  // Answered late, it is closed by the gate, which lets this test end.
  const closed = once(socket, "close");
  socket.write("OK 1\n");
  await closed;
});

test("an end instead of OK means that nobody listens, and other words that it is no such device", async (context) => {
  const { backend, gate } = await start(context);
  const refused = gate.connect(1000, never);
  (await backend.asked()).socket.end();
  await assert.rejects(refused, { code: "not_ready", message: "nothing listens on vsock in the guest" });
  for (const words of ["NO\n", "OK x\n", "x".repeat(100)]) {
    const wrong = gate.connect(1000, never);
    (await backend.asked()).socket.write(words);
    await assert.rejects(wrong, { code: "not_ready", message: /wrong answer/ });
  }
});

test("a device in trouble is not asked, and says what it is", async (context) => {
  const { backend, gate } = await start(context, { trouble: async () => "its vhost-device-vsock has ended" });
  await assert.rejects(gate.connect(1000, never), {
    code: "not_ready",
    message: "its vhost-device-vsock has ended",
  });
  assert.equal(backend.connections, 0);
});

test("while the VM is paused nothing is opened, and what is closed is closed when it goes on", async (context) => {
  const { backend, gate } = await start(context);
  const connecting = gate.connect(1000, never);
  const { socket } = await backend.asked();
  socket.write("OK 1000\n");
  const stream = await connecting;
  const touched: string[] = [];
  socket.on("data", (bytes: Buffer) => touched.push(bytes.toString()));
  const closed = once(socket, "close").then(() => touched.push("closed"));

  backend.run.set(true);
  assert.equal(gate.held, true);
  await assert.rejects(gate.connect(1000, never), { code: "not_ready", message: "the VM is paused" });
  gate.whenRunning(() => stream.destroy());
  for (let turn = 0; turn < 20; turn += 1) await nextTurn();
  assert.deepEqual([touched, backend.connections], [[], 1]);

  backend.run.set(false);
  await closed;
  assert.deepEqual(touched, ["closed"]);
  const next = gate.connect(1000, never);
  (await backend.asked()).socket.write("OK 1000\n");
  (await next).destroy();
});
