/** Deployments over HTTP, with use cases in memory. */
import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { rawRequest, sendJson } from "./testing/raw-request.ts";
import { runApi, type RunningApi } from "./testing/running-api.ts";

let running: RunningApi;

before(async () => {
  running = await runApi();
});
after(() => running.api.close());

const send = (method: string, path: string, body: unknown) =>
  sendJson(running.address, `/api/v1/${path}`, body, method);
const get = (path: string) => rawRequest(running.address, `/api/v1/${path}`);

test("a deployment is created, listed, shown, scaled, changed, rolled back and deleted", async () => {
  const created = await send("POST", "deployments", { name: "web", replicas: 2, config: { plugin: "hello" } });
  assert.equal(created.status, 201);
  const { created_at: createdAt, updated_at: _, ...rest } = created.json as Record<string, unknown>;
  assert.equal(typeof createdAt, "string");
  assert.deepEqual(rest, {
    name: "web",
    desired_replicas: 2,
    ready_replicas: 0,
    config: { plugin: "hello" },
    updated_replicas: 0,
    unavailable: 2,
    version: 1,
    max_unavailable: 1,
    ready_timeout_ms: 120_000,
    min_ready_ms: 2000,
    paused: false,
    rollout: { state: "progressing" },
  });
  assert.deepEqual((await get("deployments")).json, [created.json]);
  assert.deepEqual((await get("deployments/web")).json, created.json);
  const scaled = await send("PATCH", "deployments/web", { replicas: 5 });
  assert.deepEqual([scaled.status, (scaled.json as { desired_replicas: number }).desired_replicas], [200, 5]);
  const changed = await send("PATCH", "deployments/web", { config: { env: { A: "1" }, runtime: null } });
  assert.deepEqual((changed.json as { config: object }).config, { plugin: "hello", env: { A: "1" } });
  const back = await send("POST", "deployments/web/rollback", { version: 1 });
  assert.deepEqual([back.status, (back.json as { version: number }).version], [200, 1]);
  const history = (await get("deployments/web/history?limit=1")).json as { version: number }[];
  assert.deepEqual(
    history.map(({ version }) => version),
    [2],
  );
  assert.equal((await rawRequest(running.address, "/api/v1/deployments/web", { method: "DELETE" })).status, 204);
  assert.equal((await get("deployments/web")).status, 404);
});

test("what is waited for is answered in time with the outcome, and with 202 when time was up; a key makes one deployment only", async () => {
  const body = { name: "slow", replicas: 1, config: { plugin: "hello" } };
  const early = await send("POST", "deployments?wait=0", body);
  assert.deepEqual([early.status, (early.json as { name: string }).name], [202, "slow"]);
  const created = rawRequest(running.address, "/api/v1/deployments?wait=1m", {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": "one" },
    body: JSON.stringify({ ...body, name: "soon" }),
  });
  while ((await get("deployments/soon")).status === 404) await new Promise(setImmediate);
  running.deployments.move("soon", 1, "complete");
  const answer = await created;
  assert.deepEqual([answer.status, (answer.json as { ready_replicas: number }).ready_replicas], [201, 1]);
  const again = await rawRequest(running.address, "/api/v1/deployments", {
    method: "POST",
    headers: { "content-type": "application/json", "idempotency-key": "one" },
    body: JSON.stringify({ ...body, name: "soon" }),
  });
  assert.equal(again.status, 201, again.text);
  assert.equal((await send("PATCH", "deployments/soon?wait=0", { config: { env: { A: "1" } } })).status, 202);
  running.deployments.move("soon", 0, "failed", "soon-1 is ill");
  const failed = await send("PATCH", "deployments/soon?wait=1m", { max_unavailable: 2 });
  const { rollout } = failed.json as { rollout: object };
  assert.deepEqual([failed.status, rollout], [200, { state: "failed", reason: "soon-1 is ill" }]);
  assert.equal((await send("POST", "deployments/soon/rollback?wait=0", { version: 1 })).status, 202);
  const unfinished = await rawRequest(running.address, "/api/v1/deployments/soon?wait=0", { method: "DELETE" });
  assert.equal(unfinished.status, 202);
  for (const name of ["slow", "soon"]) {
    const gone = await rawRequest(running.address, `/api/v1/deployments/${name}?wait=1m`, { method: "DELETE" });
    assert.equal(gone.status, 204);
  }
  const wrong = await send("POST", "deployments?wait=soon", { ...body, name: "never" });
  assert.deepEqual([wrong.status, (await get("deployments/never")).status], [400, 404]);
});

const mistakes: readonly [method: string, path: string, body: unknown, status: number, sentence: RegExp][] = [
  ["POST", "deployments", { name: "web" }, 400, /lacks "config"/],
  ["POST", "deployments", { name: "a/b", config: {} }, 400, /deployment name "a\/b" must not contain/],
  ["POST", "deployments", { name: "web", config: {}, replicas: -1 }, 400, /"replicas"/],
  ["POST", "deployments", { name: "web", config: { colour: "blue" } }, 400, /unknown field "config.colour"/],
  ["PATCH", "deployments/web", { desired_replicas: 1 }, 400, /unknown field "desired_replicas"/],
  ["PATCH", "deployments/web", { max_unavailable: 0 }, 400, /"max_unavailable"/],
  ["PATCH", "deployments/none", { replicas: 1 }, 404, /"none"/],
  ["POST", "deployments/none/rollback", { version: 1 }, 404, /"none"/],
  ["POST", "deployments/none/rollback", {}, 400, /lacks "version"/],
];
for (const [method, path, body, status, sentence] of mistakes) {
  test(`${method} ${path} with ${JSON.stringify(body)} is refused with ${status} and one sentence`, async () => {
    const answer = await send(method, path, body);
    assert.equal(answer.status, status);
    assert.match((answer.json as { error: string }).error, sentence);
  });
}
