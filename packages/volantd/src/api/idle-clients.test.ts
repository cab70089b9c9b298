/** Clients that say nothing, say it slowly or without end: they cost what they cost for a bounded time, and keep nobody out. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import test, { after, before } from "node:test";
import { within } from "../../../../test/patience.ts";
import { rawRequest } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
before(async () => {
  running = await runApi();
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

interface Client {
  readonly socket: Socket;
  /** What came back. */
  text(): string;
  readonly closed: Promise<unknown>;
}

async function client(first = ""): Promise<Client> {
  const socket = connect(Number(new URL(running.address).port), "127.0.0.1");
  let text = "";
  socket.setEncoding("utf8").on("data", (part: string) => (text += part));
  socket.on("error", () => {});
  const closed = new Promise((resolve) => socket.once("close", resolve));
  await once(socket, "connect");
  if (first !== "") socket.write(first);
  return { socket, closed, text: () => text };
}

/** Does something again and again until what is awaited is there. */
async function meanwhile(everyMs: number, work: () => unknown, awaited: Promise<unknown>, what: string): Promise<void> {
  const timer = setInterval(work, everyMs);
  try {
    await within(awaited, what);
  } finally {
    clearInterval(timer);
  }
}

async function assertServed(): Promise<void> {
  assert.equal((await within(rawRequest(running.address, "/healthz"), "an answer to another client")).status, 200);
}

test("1,000 idle connections, silent ones and such as were used once, keep nobody out", async () => {
  const clients: Client[] = [];
  for (let count = 0; count < 1000; count += 1) {
    clients.push(await client(count % 2 === 0 ? "" : "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    if (count % 100 === 99) await assertServed();
  }
  await assertServed();
  const open = clients.filter(({ socket }) => !socket.destroyed && !socket.closed);
  assert.ok(open.length <= 600, `${open.length} of one address are open`);
  for (const { socket } of clients) socket.destroy();
  await Promise.all(clients.map(({ closed }) => closed));
});

test("a body without end, announced or not, is cut off when it is over the limit", async () => {
  const head = "POST /api/v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  const announced = await client(`${head}Content-Length: 99999999999\r\n\r\n{`);
  const chunked = await client(`${head}Transfer-Encoding: chunked\r\n\r\n`);
  const chunk = `10000\r\n${"x".repeat(65_536)}\r\n`;
  const write = () => chunked.socket.writable && chunked.socket.write(chunk);
  await meanwhile(1, write, Promise.all([announced.closed, chunked.closed]), "the end of both");
  for (const { text } of [announced, chunked]) assert.match(text(), /^HTTP\/1\.1 413 .*"code":"too_large"/s);
  await assertServed();
});

test("headers without end are refused at 16 KiB", async () => {
  const endless = await client("GET /healthz HTTP/1.1\r\nHost: localhost\r\n");
  const write = () => endless.socket.writable && endless.socket.write(`X-${"y".repeat(1000)}: z\r\n`);
  await meanwhile(1, write, endless.closed, "its end");
  assert.match(endless.text(), /^HTTP\/1\.1 413 /);
});

test("slow clients (headers, a body, a file, a byte at a time or none) are cut off, and others are served meanwhile", async () => {
  const post =
    "POST /api/v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n";
  const file = `PUT /api/v1/images/sha256:${"0".repeat(64)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\n`;
  const slow = await Promise.all(["", "GET / HTTP/1.1\r\nX-Slow: ", post, file].map((first) => client(first)));
  const [silent, headers, body] = slow;
  // The file's client stops; the others go on with a byte a second, which is never silence.
  const drip = () => {
    for (const { socket } of [headers, body] as Client[]) if (socket.writable) socket.write("x");
  };
  await assertServed();
  await meanwhile(1000, drip, Promise.all((slow as Client[]).map(({ closed }) => closed)), "the end of all of them");
  assert.match(headers?.text() ?? "", /^HTTP\/1\.1 504 .*"code":"timeout"|^$/s);
  assert.ok(silent?.socket.closed);
  await assertServed();
});

test("a client that wants its connection closed reads the answer to a body that was refused early, and may send the rest", async () => {
  const sizeBytes = 40_000_000;
  const head = `PUT /api/v1/vms/nobody/files?path=/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n`;
  const { socket, closed, text } = await client(
    `${head}Content-Type: application/octet-stream\r\nContent-Length: ${sizeBytes}\r\n\r\n`,
  );
  const answered = new Promise((resolve) => socket.once("data", resolve));
  await within(answered, "an answer before the body has come");
  // The connection still takes what was announced: whoever sends it all before it reads is not reset.
  const failure = new Promise((resolve) => socket.write(Buffer.alloc(sizeBytes), resolve));
  assert.ok(!((await within(failure, "the rest of the body")) instanceof Error));
  await within(closed, "the end of the connection");
  assert.match(text(), /^HTTP\/1\.1 404 .*connection: close\r\n.*not_found/is);
});
