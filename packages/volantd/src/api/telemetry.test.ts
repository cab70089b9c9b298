import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import type { RequestDone } from "../telemetry/telemetry.ts";
import { runApi } from "./testing/running-api.ts";

test("metrics come as Prometheus reads them, with a key only; health and readiness are told without one", async (t) => {
  const { api, address, useCases } = await runApi({ apiKey: "secret" });
  t.after(() => api.close());
  assert.equal((await fetch(`${address}/metrics`)).status, 401);
  const answer = await fetch(`${address}/metrics`, { headers: { authorization: "Bearer secret" } });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8");
  assert.equal(await answer.text(), "volant_vms 0\n");
  assert.deepEqual(await (await fetch(`${address}/readyz`)).json(), { status: "ok" });
  // A volantd that can't work is alive all the same.
  t.mock.method(useCases.readiness, "check", async () => {
    throw new VolantError("not_ready", "the disk is full");
  });
  const refused = await fetch(`${address}/readyz`);
  assert.equal(refused.status, 503);
  assert.deepEqual(await refused.json(), { error: "the disk is full", code: "not_ready" });
  assert.equal((await fetch(`${address}/healthz`)).status, 200);
});

test("each answered request is told with its route's pattern, its status and its caller's trace", async (t) => {
  const told: RequestDone[] = [];
  const { api, address } = await runApi({}, { telemetry: { request: (done) => void told.push(done) } });
  t.after(() => api.close());
  await fetch(`${address}/api/v1/vms/none`, { headers: { traceparent: "00-1" } });
  await fetch(`${address}/nowhere/${"x".repeat(20)}`);
  assert.deepEqual(
    told.map(({ method, route, status, traceParent }) => [method, route, status, traceParent]),
    [
      ["GET", "/api/v1/vms/:name", 404, "00-1"],
      ["GET", undefined, 404, undefined],
    ],
  );
  for (const { startedMs, endedMs } of told) assert.ok(endedMs >= startedMs);
});
