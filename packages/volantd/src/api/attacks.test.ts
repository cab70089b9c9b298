/** Attacks from other pages, by the way of guests, and on keys, each named by what it tries; over real sockets. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { json } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { within } from "../../../../test/patience.ts";
import { rawRequest } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
let key: string;
/** What the workload was sent, and sends back where somebody asks for an upgrade. */
const seen: { url: string | undefined; headers: IncomingHttpHeaders }[] = [];
const workload = createServer((incoming, answer) => {
  seen.push({ url: incoming.url, headers: incoming.headers });
  answer.end("ok");
});
workload.on("upgrade", (incoming: IncomingMessage, socket: Socket) => {
  seen.push({ url: incoming.url, headers: incoming.headers });
  socket.end("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
});

before(async () => {
  running = await runApi({ corsOrigins: ["https://console.example"] });
  workload.listen(0, "127.0.0.1");
  await once(workload, "listening");
  await running.useCases.vms.create({ name: "web" });
  running.workloads.set("web", (workload.address() as AddressInfo).port);
});
after(async () => {
  await running.api.close();
  workload.closeAllConnections();
  workload.close();
  assert.deepEqual(running.errors, []);
});

const UPGRADES = ["/ws/v1/vms/web/logs", "/ws/v1/vms/web/console", "/api/v1/vms/web/agent/chat"].map((path) => ({
  path,
  upgrade: "websocket",
}));
const STREAMS = ["exec", "console"].map((name) => ({
  path: `/api/v1/vms/web/${name}`,
  upgrade: "volant-stream",
  method: "POST",
}));

interface Asked {
  readonly path: string;
  readonly upgrade: string;
  readonly method?: string;
}

/** Status and code of the answer to an upgrade; 101 where it was agreed on. */
async function ask(
  { path, upgrade, method = "GET" }: Asked,
  headers: Record<string, string>,
): Promise<[number, string?]> {
  const socketHeaders = { "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version": "13" };
  const outgoing = request(`${running.address}${path}`, {
    method,
    agent: false,
    headers: { connection: "Upgrade", upgrade, ...socketHeaders, ...headers },
  });
  const { promise, resolve, reject } = Promise.withResolvers<[number, string?]>();
  outgoing.once("error", reject);
  outgoing.once("upgrade", (answer, socket) => {
    socket.destroy();
    resolve([answer.statusCode ?? 0]);
  });
  outgoing.once("response", (answer) =>
    resolve(json(answer).then((body) => [answer.statusCode ?? 0, (body as { code: string }).code])),
  );
  outgoing.end();
  return within(promise, `an answer to ${path}`);
}

test("DNS rebinding: a page whose own name leads to this host reads, makes and opens nothing", async () => {
  for (const host of [
    "evil.example",
    "evil.example:7777",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.localhost.example",
  ]) {
    for (const [method, path] of [
      ["GET", "/api/v1/vms"],
      ["POST", "/api/v1/vms"],
      ["GET", "/healthz"],
      ["GET", "/openapi"],
    ] as const) {
      const answer = await rawRequest(running.address, path, {
        method,
        headers: { host },
        ...(method === "POST" ? { body: "{}" } : {}),
      });
      assert.equal(answer.status, 403, `${method} ${path} for ${host}`);
    }
    for (const asked of [...UPGRADES, ...STREAMS])
      assert.deepEqual(await ask(asked, { host }), [403, "forbidden"], asked.path);
  }
});

test("cross-site WebSocket: a page of another origin opens none, of this API, of a workload, or into a guest", async () => {
  const own = new URL(running.address).host;
  for (const origin of [
    "https://evil.example",
    "null",
    "http://localhost:1",
    `https://${own}.evil.example`,
    "file://",
    "https://console.example.evil",
  ]) {
    for (const asked of [...UPGRADES, ...STREAMS]) {
      assert.deepEqual(await ask(asked, { origin }), [403, "forbidden"], `${asked.path} from ${origin}`);
    }
  }
  for (const origin of ["https://console.example", `http://${own}`]) {
    for (const asked of UPGRADES) {
      const [status] = await ask(asked, { origin });
      // The VM has no console here, and that is what a page of this origin is told.
      assert.equal(status, asked.path.endsWith("/console") ? 502 : 101, `${asked.path} from ${origin}`);
    }
  }
});

test("a form of another page, which needs no preflight, makes nothing", async () => {
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]) {
    const headers = { "content-type": type, origin: "https://evil.example" };
    const answer = await rawRequest(running.address, "/api/v1/vms", {
      method: "POST",
      headers,
      body: '{"name":"evil"}',
    });
    assert.equal(answer.status, 403);
    const bare = await rawRequest(running.address, "/api/v1/vms", {
      method: "POST",
      headers: { "content-type": type },
      body: '{"name":"evil"}',
    });
    assert.equal(bare.status, 400);
  }
  assert.equal(running.useCases.vms.list({ q: "evil" }).total, 0);
});

test("a key in the query is refused everywhere, right or wrong, and is no way in", async () => {
  key = running.useCases.keys.create({ name: "ci", scope: "admin" }).key;
  for (const name of ["key", "api_key", "apikey", "access_token", "token", "x-volant-api-key", "X-Volant-API-Key"]) {
    for (const path of ["/api/v1/vms", "/openapi", "/api/v1/keys", "/no/such/path", "/api/v1/events/vms"]) {
      for (const headers of [{}, { "x-volant-api-key": key }]) {
        const answer = await rawRequest(running.address, `${path}?${name}=${key}`, { headers });
        assert.equal(answer.status, 400, `${path}?${name}`);
        assert.match(answer.text, /a key must not stand in a URL/);
      }
    }
    const [socket] = UPGRADES;
    assert.ok(socket !== undefined);
    assert.deepEqual(await ask({ ...socket, path: `${socket.path}?${name}=${key}` }, {}), [400, "invalid"]);
  }
});

test("no key reaches a guest, wherever a client puts it: header, bearer, subprotocol, query, of a request or a WebSocket", async () => {
  seen.length = 0;
  const encoded = `volant.key.${Buffer.from(key).toString("base64url")}`;
  const path = "/api/v1/vms/web/agent/x";
  const other = running.useCases.keys.create({ name: "other", scope: "operate" }).key;
  for (const headers of [
    { "x-volant-api-key": key },
    { authorization: `Bearer ${key}` },
    { authorization: `bearer  ${key}` },
    { "x-volant-api-key": key, authorization: `Bearer ${other}` },
    { "x-volant-api-key": key, "sec-websocket-protocol": `${encoded}, chat` },
  ]) {
    assert.equal((await rawRequest(running.address, path, { headers })).status, 200);
    assert.deepEqual(await ask({ path, upgrade: "websocket" }, headers), [101]);
  }
  for (const query of [`?k=${key}`, `?a=1&b=${other}`, `?k=${encodeURIComponent(key).replace("_", "%5F")}`]) {
    assert.equal(
      (await rawRequest(running.address, path + query, { headers: { "x-volant-api-key": key } })).status,
      400,
    );
    assert.deepEqual(await ask({ path: path + query, upgrade: "websocket" }, { "x-volant-api-key": key }), [
      400,
      "invalid",
    ]);
  }
  assert.equal(seen.length, 10);
  for (const secret of [key, other, encoded]) assert.ok(!JSON.stringify(seen).includes(secret));
  assert.equal(seen.at(-1)?.headers["sec-websocket-protocol"], "chat");
});

test("a workload's own key, and its own fields in the query, reach it", async () => {
  seen.length = 0;
  const headers = { "x-volant-api-key": key, authorization: "Bearer of-the-workload" };
  assert.equal((await rawRequest(running.address, "/api/v1/vms/web/agent/x?key=1&token=abc", { headers })).status, 200);
  assert.deepEqual([seen[0]?.url, seen[0]?.headers.authorization], ["/x?key=1&token=abc", "Bearer of-the-workload"]);
});

test("a workload is not told a client's address that the client has made up", async () => {
  seen.length = 0;
  const headers = { "x-volant-api-key": key, "x-forwarded-for": "127.0.0.9", "x-forwarded-proto": "https" };
  await rawRequest(running.address, "/api/v1/vms/web/agent/x", { headers });
  assert.deepEqual([seen[0]?.headers["x-forwarded-for"], seen[0]?.headers["x-forwarded-proto"]], ["127.0.0.1", "http"]);
});

test("a key that is revoked opens nothing, and what goes on with it ends at once: a stream of events and one into a guest", async () => {
  const { key: doomed } = running.useCases.keys.create({ name: "doomed", scope: "operate" });
  const headers = { "x-volant-api-key": doomed };
  const events = request(`${running.address}/api/v1/events/vms`, { agent: false, headers }).end();
  const [stream] = (await once(events, "response")) as [IncomingMessage];
  const upgrade = { connection: "Upgrade", upgrade: "volant-stream", ...headers };
  const exec = request(`${running.address}/api/v1/vms/web/exec`, {
    method: "POST",
    agent: false,
    headers: upgrade,
  }).end();
  const [, socket] = (await once(exec, "upgrade")) as [IncomingMessage, Socket];
  const ends = [stream, socket].map(
    (open) =>
      new Promise((resolve) =>
        open
          .resume()
          .on("error", () => {})
          .once("close", resolve),
      ),
  );
  const answer = await rawRequest(running.address, "/api/v1/keys/doomed", {
    method: "DELETE",
    headers: { "x-volant-api-key": key },
  });
  assert.equal(answer.status, 204);
  await within(Promise.all(ends), "the end of both streams");
  assert.equal((await rawRequest(running.address, "/api/v1/vms", { headers })).status, 401);
});

test("a key does no more than its scope, on any route of the table", async () => {
  const { key: reader } = running.useCases.keys.create({ name: "reader", scope: "read" });
  const headers = { "x-volant-api-key": reader };
  const cases: [method: string, path: string, status: number][] = [
    ["GET", "/api/v1/vms", 200],
    ["GET", "/api/v1/vms/web", 200],
    ["DELETE", "/api/v1/vms/web", 403],
    ["POST", "/api/v1/vms/web/stop", 403],
    ["GET", "/api/v1/vms/web/agent/", 403],
    ["GET", "/api/v1/vms/web/files?path=/etc/shadow", 403],
    ["GET", "/api/v1/system/backup", 403],
    ["GET", "/api/v1/keys", 403],
    ["POST", "/api/v1/keys", 403],
    ["PUT", `/api/v1/images/sha256:${"0".repeat(64)}`, 403],
    ["POST", "/api/v1/plugins", 403],
    ["POST", "/api/v1/vfio/devices/bind", 403],
    ["GET", "/no/such/path", 404],
  ];
  for (const [method, path, status] of cases) {
    assert.equal((await rawRequest(running.address, path, { method, headers })).status, status, `${method} ${path}`);
  }
  const [, console, chat] = UPGRADES;
  for (const asked of [console, chat, ...STREAMS]) {
    assert.ok(asked !== undefined);
    assert.deepEqual(await ask(asked, headers), [403, "forbidden"], asked.path);
  }
  assert.deepEqual(await ask({ path: "/ws/v1/vms/web/logs", upgrade: "websocket" }, headers), [101]);
  assert.equal(running.useCases.vms.get("web").status, "pending");
});

test("a key does no more by the Model Context Protocol than by the routes themselves", async () => {
  const { key: reader } = running.useCases.keys.create({ name: "asks", scope: "read" });
  const headers = { "x-volant-api-key": reader, "content-type": "application/json" };
  const command = (body: object) =>
    rawRequest(running.address, "/api/v1/mcp", { method: "POST", headers, body: JSON.stringify(body) });
  assert.equal((await command({ command: "vms.list" })).status, 200);
  for (const [name, more] of [
    ["vms.create", {}],
    ["vms.delete", {}],
    ["vms.stop", {}],
    ["vms.exec", { command: ["id"] }],
  ] as const) {
    const answer = await command({ command: name, params: { name: "web", ...more } });
    assert.deepEqual([answer.status, (answer.json as { code: string }).code], [403, "forbidden"], answer.text);
  }
  assert.equal(running.useCases.vms.get("web").status, "pending");
});
