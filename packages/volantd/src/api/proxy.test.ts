import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, request, type IncomingMessage, type RequestOptions, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { buffer, text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { parseProxyTarget, rewriteLocation } from "./proxy.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
let serve: (incoming: IncomingMessage, answer: ServerResponse) => void;
const workload = createServer((incoming, answer) => serve(incoming, answer));

before(async () => {
  running = await runApi({ apiKey: "secret" });
  workload.listen(0, "127.0.0.1");
  await once(workload, "listening");
  await running.useCases.vms.create({ name: "web", plugin: undefined as never });
  running.workloads.set("web", (workload.address() as AddressInfo).port);
});
after(async () => {
  await running.api.close();
  workload.closeAllConnections();
  workload.close();
  assert.deepEqual(running.errors, []);
});

async function ask(path: string, options: RequestOptions = {}, body?: Buffer | string): Promise<IncomingMessage> {
  const headers = { "x-volant-api-key": "secret", ...options.headers };
  const outgoing = request(`${running.address}/api/v1/vms/${path}`, { agent: false, ...options, headers });
  outgoing.end(body);
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  return answer;
}

test("a target is the workload's path as it was written; healthz alone is the agent's, and v1/ is the root once more", () => {
  const cases: [string, ReturnType<typeof parseProxyTarget>][] = [
    ["/api/v1/vms/web/agent", { name: "web", to: { path: "/" } }],
    ["/api/v1/vms/web/agent?q=1", { name: "web", to: { path: "/?q=1" } }],
    ["/api/v1/vms/web/agent/", { name: "web", to: { path: "/" } }],
    ["/api/v1/vms/web/agent/a%2fb//c/?x=/y", { name: "web", to: { path: "/a%2fb//c/?x=/y" } }],
    ["/api/v1/vms/web/agent/healthz", { name: "web", to: "agent" }],
    ["/api/v1/vms/web/agent/v1/healthz", { name: "web", to: { path: "/healthz" } }],
    ["/api/v1/vms/web/agent/v1", { name: "web", to: { path: "/" } }],
    ["/api/v1/vms/web/agent/v1/v1/x", { name: "web", to: { path: "/v1/x" } }],
    ["/api/v1/vms/web/agents", undefined],
    ["/api/v1/vms/web", undefined],
  ];
  for (const [url, expected] of cases) assert.deepEqual(parseProxyTarget(url), expected, url);
  assert.throws(() => parseProxyTarget("/api/v1/vms/a%2fb/agent/x"), { code: "invalid" });
  assert.throws(() => parseProxyTarget("/api/v1/vms/%zz/agent/x"), { code: "invalid" });
});

test("redirects within the workload stay behind the proxy, others are left alone", () => {
  const cases: [string, string][] = [
    ["/login", "/api/v1/vms/web/agent/v1/login"],
    ["http://10.0.0.2:80/x?y", "/api/v1/vms/web/agent/v1/x?y"],
    ["//elsewhere/x", "//elsewhere/x"],
    ["https://elsewhere/x", "https://elsewhere/x"],
    ["next", "next"],
  ];
  for (const [location, expected] of cases) assert.equal(rewriteLocation(location, "10.0.0.2:80", "web"), expected);
});

test("the host's key never reaches the workload, in either header; the workload's own authorization does", async () => {
  const seen: IncomingMessage["headers"][] = [];
  serve = (incoming, answer) => {
    seen.push(incoming.headers);
    answer.end();
  };
  const own = await ask("web/agent/x", { headers: { authorization: "Bearer for-the-workload", cookie: "a=b" } });
  const bearer = await ask("web/agent/x", { headers: { "x-volant-api-key": [], authorization: "Bearer secret" } });
  assert.deepEqual([own.statusCode, bearer.statusCode], [200, 200]);
  assert.equal(seen[0]?.authorization, "Bearer for-the-workload");
  assert.equal(seen[0]?.cookie, "a=b");
  assert.doesNotMatch(JSON.stringify(seen), /secret/);
  const refused = await ask("web/agent/x", { headers: { "x-volant-api-key": "wrong" } });
  assert.equal(refused.statusCode, 401);
  assert.equal(seen.length, 2);
});

test("fields about one connection stop at the proxy, and fields about the whole origin do not come back", async () => {
  let seen: IncomingMessage["headers"] = {};
  serve = (incoming, answer) => {
    seen = incoming.headers;
    const fields = {
      "x-hop": "1",
      connection: "x-hop",
      "clear-site-data": '"*"',
      "x-good": "1",
      "set-cookie": ["a", "b"],
    };
    answer.writeHead(418, { ...fields, "content-security-policy": "default-src 'self'" });
    answer.end("tea");
  };
  const answer = await ask("web/agent/x", {
    headers: { connection: "x-mine", "x-mine": "1", te: "trailers", "x-yours": "1" },
  });
  assert.equal(seen["x-mine"], undefined);
  assert.equal(seen["te"], undefined);
  assert.equal(seen["x-yours"], "1");
  assert.equal(seen.host, "workload.example:80");
  assert.equal(seen["x-forwarded-prefix"], "/api/v1/vms/web/agent");
  assert.equal(answer.statusCode, 418);
  assert.equal(answer.headers["x-hop"], undefined);
  assert.equal(answer.headers["clear-site-data"], undefined);
  assert.equal(answer.headers["x-good"], "1");
  assert.deepEqual(answer.headers["set-cookie"], ["a", "b"]);
  assert.match(String(answer.headers["content-security-policy"]), /default-src 'self', sandbox allow-scripts/);
  assert.equal(await text(answer), "tea");
});

test("bodies go both ways whole, whatever their type and length", async () => {
  serve = (incoming, answer) => {
    answer.writeHead(200, { "content-type": "application/octet-stream" });
    incoming.pipe(answer);
  };
  const body = randomBytes(3_000_000);
  const digest = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
  for (const headers of [
    { "content-length": body.length },
    { "transfer-encoding": "chunked", "content-type": "x/y" },
  ]) {
    const answer = await ask("web/agent/echo", { method: "POST", headers }, body);
    assert.equal(digest(await buffer(answer)), digest(body));
  }
});

test("an answer streams: its first bytes come before the request is over", async () => {
  serve = (incoming, answer) => {
    answer.write("begun\n");
    incoming.resume().once("end", () => answer.end("over\n"));
  };
  const headers = { "x-volant-api-key": "secret" };
  const outgoing = request(`${running.address}/api/v1/vms/web/agent/x`, { method: "POST", agent: false, headers });
  outgoing.write("a");
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  const [first] = (await once(answer, "data")) as [Buffer];
  assert.equal(first.toString(), "begun\n");
  outgoing.end();
  assert.equal(await text(answer), "over\n");
});

test("a workload that breaks off, or speaks no HTTP, is a 502 or a broken answer, never a whole one", async () => {
  serve = (incoming) => void incoming.socket.destroy();
  const none = await ask("web/agent/x");
  assert.equal(none.statusCode, 502);
  assert.match(await text(none), /guest_unreachable/);
  serve = (_, answer) => {
    answer.writeHead(200, { "content-length": 10 });
    answer.write("half", () => answer.destroy());
  };
  const half = await ask("web/agent/x");
  await assert.rejects(text(half));
  running.workloads.delete("web");
  assert.equal((await ask("web/agent/x")).statusCode, 502);
  running.workloads.set("web", (workload.address() as AddressInfo).port);
  assert.equal((await ask("none/agent/x")).statusCode, 404);
  assert.equal(await text(await ask("web/agent/healthz")), '{"status":"ok"}');
});

test("a client that hangs up ends the exchange in the guest", async () => {
  const closed = Promise.withResolvers<void>();
  serve = (incoming, answer) => {
    answer.write("x");
    incoming.socket.once("close", () => closed.resolve());
  };
  const answer = await ask("web/agent/x");
  answer.destroy();
  await closed.promise;
});

test("an upgrade is passed on with its bytes, and a refused one is answered", async () => {
  workload.on("upgrade", (incoming: IncomingMessage, socket: Duplex) => {
    assert.doesNotMatch(JSON.stringify(incoming.headers), /secret/);
    if (incoming.url === "/no") {
      socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
      return;
    }
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nx-path: ${incoming.url}\r\n\r\n`,
    );
    socket.pipe(socket);
  });
  const offer = { connection: "Upgrade", upgrade: "websocket", "x-volant-api-key": "secret" };
  const open = (path: string, headers: Record<string, string>) =>
    request(`${running.address}/api/v1/vms/web/agent${path}`, { agent: false, headers }).end();
  const [answer, socket] = (await once(open("/chat?a=1", offer), "upgrade")) as [IncomingMessage, Duplex];
  assert.equal(answer.headers["x-path"], "/chat?a=1");
  socket.end("hello");
  assert.equal(await text(socket), "hello");
  const [refused] = (await once(open("/no", offer), "response")) as [IncomingMessage];
  assert.deepEqual([refused.statusCode, await text(refused)], [403, "no"]);
  const [keyless] = (await once(open("/chat", { ...offer, "x-volant-api-key": "" }), "response")) as [IncomingMessage];
  assert.equal(keyless.statusCode, 401);
  const [foreign] = (await once(open("/chat", { ...offer, origin: "null" }), "response")) as [IncomingMessage];
  assert.equal(foreign.statusCode, 403);
});

test("an answer without a length that breaks off is broken off for the client, too, and not taken for whole", async () => {
  const begun = Promise.withResolvers<IncomingMessage["socket"]>();
  serve = ({ socket }) => {
    socket.write("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf");
    begun.resolve(socket);
  };
  const answer = await ask("web/agent/x");
  const [half] = (await once(answer, "data")) as [Buffer];
  assert.equal(half.toString(), "half");
  const broken = once(answer.resume(), "error");
  (await begun.promise).resetAndDestroy();
  await broken;
  assert.equal(answer.complete, false);
});
