/** What the audit log says, over real requests. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:http";
import test, { after, before } from "node:test";
import { PATIENCE_MS } from "../../../../test/patience.ts";
import { rawRequest, sendJson } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;
before(async () => {
  running = await runApi({ apiKey: "operators-own-key" });
});
after(async () => {
  await running.api.close();
  assert.deepEqual(running.errors, []);
});

const admin = { "x-volant-api-key": "operators-own-key" };

/** The lines of what `work` does, once there are so many. */
async function linesOf(
  count: number,
  work: () => Promise<unknown>,
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const before = running.audited.length;
  await work();
  const deadline = performance.now() + PATIENCE_MS;
  while (running.audited.length < before + count && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return running.audited.slice(before);
}

test("who did what is told with the outcome, by the key's name and never by the key; who read is not", async () => {
  const { key } = running.useCases.keys.create({ name: "ci", scope: "operate" });
  const lines = await linesOf(4, async () => {
    const headers = { "x-volant-api-key": key, "content-type": "application/json" };
    await rawRequest(running.address, "/api/v1/vms?wait=0s", { method: "POST", headers, body: '{"name":"web"}' });
    await rawRequest(running.address, "/api/v1/vms", { headers });
    await rawRequest(running.address, "/api/v1/vms/web?x=1", { method: "DELETE", headers });
    await rawRequest(running.address, "/api/v1/keys", { headers });
    await rawRequest(running.address, "/api/v1/keys", { headers: admin });
    await rawRequest(running.address, "/healthz");
  });
  const told = lines.map(({ request_id: id, ...rest }) => {
    assert.match(String(id), /^[0-9a-f-]{36}$/);
    return rest;
  });
  const from = "127.0.0.1";
  assert.deepEqual(told, [
    { who: "ci", from, method: "POST", path: "/api/v1/vms", status: 202 },
    { who: "ci", from, method: "DELETE", path: "/api/v1/vms/web", status: 400 },
    { who: "ci", from, method: "GET", path: "/api/v1/keys", status: 403 },
    { who: "VOLANT_API_KEY", from, method: "GET", path: "/api/v1/keys", status: 200 },
  ]);
});

test("who reaches into a guest is told, by a stream as by the proxy", async () => {
  await running.useCases.vms.create({ name: "guest" });
  const lines = await linesOf(2, async () => {
    const upgrade = { ...admin, connection: "Upgrade", upgrade: "volant-stream" };
    const stream = request(`${running.address}/api/v1/vms/guest/exec`, {
      method: "POST",
      agent: false,
      headers: upgrade,
    });
    const [, socket] = (await once(stream.end(), "upgrade")) as [unknown, { destroy(): void }];
    socket.destroy();
    await rawRequest(running.address, "/api/v1/vms/guest/agent/healthz?secret=1", { headers: admin });
  });
  assert.deepEqual(
    lines.map(({ who, path, status }) => [who, path, status]),
    [
      ["VOLANT_API_KEY", "/api/v1/vms/guest/exec", 101],
      ["VOLANT_API_KEY", "/api/v1/vms/guest/agent/healthz", 200],
    ],
  );
});

test("a flood of refusals does not push out of the log what others did: some are told, the rest are counted", async () => {
  const own = await runApi({ apiKey: "operators-own-key" });
  for (let count = 0; count < 150; count += 1) {
    await rawRequest(own.address, "/api/v1/vms", { headers: { host: "evil.example" } });
  }
  await sendJson(own.address, "/api/v1/vms", { name: "a" });
  await rawRequest(own.address, "/api/v1/keys", { headers: admin });
  await own.api.close();
  assert.ok(own.audited.length < 150, String(own.audited.length));
  const untold = own.audited.reduce((sum, line) => sum + Number(line["refusals_untold"] ?? 0), 0);
  assert.equal(own.audited.length + untold, 152);
});
