/** Who is let in: the pure decisions, and the same over real sockets. */
import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import { checkHost, checkOrigin, checkPeer, hostName, parseCidrs } from "./access.ts";
import type { ApiConfig } from "./api-config.ts";
import { rawRequest } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

const config: ApiConfig = {
  listenHost: "0.0.0.0",
  listenPort: 7777,
  advertise: "https://volant.example:8443/base",
  allowCidrs: [],
  corsOrigins: ["https://console.example"],
};

async function withApi(changes: Partial<ApiConfig>, work: (running: RunningApi) => Promise<void>): Promise<void> {
  const running = await runApi(changes);
  try {
    await work(running);
    assert.deepEqual(running.errors, []);
  } finally {
    await running.api.close();
  }
}

test("a peer passes only from the listed networks, an IPv4 peer of a dual-stack socket too", () => {
  const ranges = parseCidrs("VOLANT_API_ALLOW_CIDR", ["10.0.0.0/8", "192.168.1.7", "fd00::/8"]);
  for (const peer of ["10.1.2.3", "::ffff:10.1.2.3", "192.168.1.7", "fd00::1"]) {
    assert.equal(checkPeer(ranges, peer), undefined, peer);
  }
  for (const peer of ["11.1.2.3", "::ffff:11.1.2.3", "192.168.1.8", "fe80::1", undefined, "nonsense"]) {
    assert.equal(checkPeer(ranges, peer)?.code, "forbidden", String(peer));
  }
  assert.equal(checkPeer([], "203.0.113.1"), undefined, "no list allows all");
});

test("a network that is none is refused, naming the setting", () => {
  assert.throws(
    () => parseCidrs("VOLANT_API_ALLOW_CIDR", ["10.0.0.0/33"]),
    (error) => error instanceof VolantError && /VOLANT_API_ALLOW_CIDR.*10\.0\.0\.0\/33/.test(error.message),
  );
});

test("loopback names, addresses and the advertised name are hosts of this API, other names are not", () => {
  for (const host of [
    "localhost",
    "LOCALHOST:7777",
    "a.localhost",
    "127.0.0.1:7777",
    "[::1]:7777",
    "192.168.1.5",
    "volant.example",
  ]) {
    assert.equal(checkHost(config, host), undefined, host);
  }
  for (const host of [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example:7777",
    "",
    undefined,
    "a b",
    "volant.example@evil",
  ]) {
    assert.equal(checkHost(config, host)?.code, "forbidden", String(host));
  }
});

test("a host name is read from a Host header without brackets, port and case", () => {
  assert.deepEqual(["[::1]:80", "A.example:1", "a", "a:b", "[::1"].map(hostName), [
    "::1",
    "a.example",
    "a",
    undefined,
    undefined,
  ]);
});

test("pages of allowed origins and of this API itself pass, others do not", () => {
  assert.equal(checkOrigin(config, undefined, "localhost").verdict, undefined);
  assert.deepEqual(checkOrigin(config, "https://console.example", "x"), {
    verdict: undefined,
    allowOrigin: "https://console.example",
  });
  assert.deepEqual(checkOrigin(config, "http://localhost:7777", "localhost:7777"), { verdict: undefined });
  for (const origin of ["null", "http://localhost:7778", "https://console.example.evil", "http://console.example"]) {
    assert.equal(checkOrigin(config, origin, "localhost:7777").verdict?.code, "forbidden", origin);
  }
  assert.equal(checkOrigin({ ...config, corsOrigins: ["*"] }, "https://any.example", "x").allowOrigin, "*");
});

test("without the key only liveness is answered, and an unknown path tells nothing", async () => {
  await withApi({ apiKey: "k" }, async ({ address }) => {
    const status = async (path: string, headers = {}) => (await rawRequest(address, path, { headers })).status;
    assert.equal(await status("/healthz"), 200);
    assert.equal(await status("/api/v1/system/status"), 401);
    assert.equal(await status("/openapi"), 401);
    assert.equal(await status("/api/v1/vms"), 401);
    assert.equal(await status("/no/such/path"), 401);
    assert.equal(await status("/api/v1/deployments"), 401);
    assert.equal(await status("/api/v1/events/vms"), 401);
    assert.equal(await status("/api/v1/vms?api_key=k"), 400);
    assert.equal(await status("/api/v1/vms", { "x-volant-api-key": "k" }), 200);
    assert.equal(await status("/no/such/path", { authorization: "Bearer k" }), 404);
  });
});

test("a body that is refused for its key is not read into memory, and the answer still arrives", async () => {
  await withApi({ apiKey: "k" }, async ({ address, images }) => {
    const answer = await rawRequest(address, `/api/v1/images/sha256:${"0".repeat(64)}`, {
      method: "PUT",
      headers: { "content-type": "application/octet-stream" },
      body: Buffer.alloc(4_000_000),
    });
    assert.equal(answer.status, 401);
    assert.equal(images.size, 0);
  });
});

test("the allow list looks at the socket's peer and not at forwarding headers", async () => {
  await withApi({ allowCidrs: ["127.0.0.2/32"] }, async ({ address }) => {
    const headers = { "x-forwarded-for": "127.0.0.2" };
    assert.equal((await rawRequest(address, "/healthz", { headers })).status, 403);
    assert.equal((await rawRequest(address, "/healthz", { localAddress: "127.0.0.2" })).status, 200);
  });
});

test("behind a proxy that is named as trusted, the allow list looks at the client that it tells of", async () => {
  const changes = { allowCidrs: ["198.51.100.0/24"], trustedProxies: ["127.0.0.2"] };
  await withApi(changes, async ({ address }) => {
    const ask = async (localAddress: string, from: string) =>
      (await rawRequest(address, "/healthz", { localAddress, headers: { "x-forwarded-for": from } })).status;
    assert.equal(await ask("127.0.0.2", "198.51.100.7"), 200);
    assert.equal(await ask("127.0.0.2", "203.0.113.7"), 403);
    assert.equal(await ask("127.0.0.2", "198.51.100.7, 203.0.113.7"), 403, "what the client itself has put there");
    assert.equal(await ask("127.0.0.1", "198.51.100.7"), 403);
  });
});

test("who asks too often is told when to ask again, and others are not concerned", async () => {
  await withApi({ ratePerSecond: 1 }, async ({ address }) => {
    const ask = (localAddress: string) => rawRequest(address, "/api/v1/vms", { localAddress });
    let answer = await ask("127.0.0.1");
    for (let count = 0; count < 20 && answer.status === 200; count += 1) answer = await ask("127.0.0.1");
    assert.deepEqual([answer.status, answer.headers["retry-after"]], [429, "1"]);
    assert.equal((await ask("127.0.0.2")).status, 200);
    assert.equal(
      (await rawRequest(address, "/healthz")).status,
      200,
      "whoever watches is not told that volantd is ill",
    );
  });
});

test("a re-bound name is refused before anything is done", async () => {
  await withApi({}, async ({ address, useCases }) => {
    const answer = await rawRequest(address, "/api/v1/vms", {
      method: "POST",
      headers: { host: "evil.example:7777", "content-type": "application/json" },
      body: '{"name":"a"}',
    });
    assert.equal(answer.status, 403);
    assert.equal(useCases.vms.list({}).total, 0);
  });
});

test("a page of another origin can neither create nor read, and its preflight is refused", async () => {
  await withApi({ corsOrigins: ["https://console.example"] }, async ({ address, useCases }) => {
    const headers = { origin: "https://evil.example", "content-type": "application/json" };
    const create = await rawRequest(address, "/api/v1/vms", { method: "POST", headers, body: '{"name":"a"}' });
    assert.equal(create.status, 403);
    assert.equal(create.headers["access-control-allow-origin"], undefined);
    assert.equal(useCases.vms.list({}).total, 0);
    const preflight = await rawRequest(address, "/api/v1/vms", {
      method: "OPTIONS",
      headers: { ...headers, "access-control-request-method": "POST" },
    });
    assert.equal(preflight.status, 403);
  });
});

test("an allowed origin gets its preflight without a key, and may read the count", async () => {
  await withApi({ corsOrigins: ["https://console.example"], apiKey: "k" }, async ({ address }) => {
    const origin = "https://console.example";
    const preflight = await rawRequest(address, "/api/v1/vms", {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-volant-api-key",
      },
    });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers["access-control-allow-origin"], origin);
    const allowed = String(preflight.headers["access-control-allow-headers"]).toLowerCase().split(", ");
    assert.deepEqual(allowed.toSorted(), [
      "authorization",
      "content-type",
      "idempotency-key",
      "last-event-id",
      "mcp-method",
      "mcp-name",
      "mcp-protocol-version",
      "mcp-session-id",
      "x-volant-api-key",
    ]);
    const list = await rawRequest(address, "/api/v1/vms", { headers: { origin, "x-volant-api-key": "k" } });
    assert.equal(list.status, 200);
    assert.match(String(list.headers["access-control-expose-headers"]), /X-Total-Count, X-Volant-Answered-By/);
    assert.equal(list.headers["vary"], "Origin");
    const refused = await rawRequest(address, "/api/v1/vms", { headers: { origin } });
    assert.equal(refused.status, 401);
    assert.equal(refused.headers["access-control-allow-origin"], origin, "the page can read why");
  });
});
