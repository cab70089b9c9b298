import assert from "node:assert/strict";
import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import { createServer, type AddressInfo, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { json, text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
before(async () => {
  running = await runApi();
  await running.useCases.vms.create({ name: "web" });
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

const offer = { connection: "Upgrade", upgrade: "volant-stream" };

function ask(path: string, headers: Record<string, string> = offer, method = "POST") {
  return request(`${running.address}/api/v1/vms/${path}`, { method, agent: false, headers }).end();
}

async function refusal(path: string, headers?: Record<string, string>, method?: string): Promise<unknown[]> {
  const [answer] = (await once(ask(path, headers, method), "response")) as [IncomingMessage];
  const { code, error } = (await json(answer)) as { code: string; error: string };
  return [answer.statusCode, code, error];
}

test("a stream carries bytes both ways, and each direction ends by itself", async () => {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    void text(socket).then((got) => socket.end(`you said ${got}`));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const [, socket] = (await once(ask(`web/forward?port=${port}`), "upgrade")) as [IncomingMessage, Duplex];
  socket.end("hello");
  assert.equal(await text(socket), "you said hello");
  server.close();
  assert.deepEqual((await refusal(`web/forward?port=${port}`)).slice(0, 2), [502, "guest_unreachable"]);
});

test("where the guest's connection breaks the client's is reset, and where the client's does the guest's is", async () => {
  const sockets: Socket[] = [];
  const server = createServer((socket) => void sockets.push(socket.on("error", () => {}))).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  for (const breaks of ["guest", "client"] as const) {
    const [, client] = (await once(ask(`web/forward?port=${port}`), "upgrade")) as [IncomingMessage, Socket];
    client.write("half");
    while (sockets.length === 0) await new Promise(setImmediate);
    const guest = sockets.pop() as Socket;
    guest.write("half");
    await Promise.all([once(client, "data"), once(guest, "data")]);
    const [broken, other] = breaks === "guest" ? [guest, client] : [client, guest];
    const told = once(other, "error", { signal: AbortSignal.timeout(30_000) });
    broken.resetAndDestroy();
    assert.equal(((await told) as NodeJS.ErrnoException[])[0]?.code, "ECONNRESET", breaks);
  }
  server.close();
});

test("what can't be opened is refused in one sentence", async () => {
  assert.deepEqual((await refusal("none/exec")).slice(0, 2), [404, "not_found"]);
  for (const query of ["", "?port=0", "?port=65536", "?port=x", "?port=1&host=y"]) {
    assert.deepEqual((await refusal(`web/forward${query}`)).slice(0, 2), [400, "invalid"], query);
  }
  assert.deepEqual((await refusal("a%20b/exec")).slice(0, 2), [400, "invalid"]);
  assert.deepEqual((await refusal("web/exec", {})).slice(0, 2), [400, "invalid"]);
  assert.deepEqual((await refusal("web/exec", offer, "GET")).slice(0, 2), [404, "not_found"]);
  assert.deepEqual((await refusal("web/exec", { ...offer, origin: "http://evil.example" })).slice(0, 2), [
    403,
    "forbidden",
  ]);
  assert.deepEqual((await refusal("web/exec", { ...offer, host: "evil.example" })).slice(0, 2), [403, "forbidden"]);
});

test("an upgrade that nobody here knows is answered as if it had not been offered", async () => {
  const [answer] = (await once(ask("web", { connection: "Upgrade", upgrade: "h2c" }, "GET"), "response")) as [
    IncomingMessage,
  ];
  assert.equal(((await json(answer)) as { name: string }).name, "web");
});

test("closing the API ends its streams", async () => {
  const own = await runApi();
  await own.useCases.vms.create({ name: "web" });
  const outgoing = request(`${own.address}/api/v1/vms/web/exec`, {
    method: "POST",
    agent: false,
    headers: offer,
  }).end();
  const [, socket] = (await once(outgoing, "upgrade")) as [IncomingMessage, Duplex];
  const ended = once(
    socket.resume().on("error", () => {}),
    "close",
  );
  await own.api.close();
  await ended;
});
