import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import { runApi } from "./testing/running-api.ts";

const json = { "content-type": "application/json" };
const manifest = {
  name: "hello",
  version: "1",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { entrypoint: ["/bin/hello"] },
  initramfs: { url: "file:///hello", checksum: `sha256:${"a".repeat(64)}` },
};

test("no answer that promises something is given before it would outlive a power failure, and reading waits for nothing", async (t) => {
  const running = await runApi();
  t.after(() => running.api.close());
  const { address } = running;
  running.images.set(manifest.initramfs.checksum, Buffer.from("hello"));
  const asked = Promise.withResolvers<void>();
  const disk = Promise.withResolvers<void>();
  let isAnswered = false;
  running.settleWith(() => {
    asked.resolve();
    return disk.promise;
  });
  const body = JSON.stringify(manifest);
  const answer = fetch(`${address}/api/v1/plugins`, { method: "POST", headers: json, body }).then((response) => {
    isAnswered = true;
    return response.status;
  });
  const first = await Promise.race([asked.promise.then(() => "asked"), answer.then((status) => `answered ${status}`)]);
  assert.equal(first, "asked", "whether it is durable is asked before the answer");
  const read = await fetch(`${address}/api/v1/plugins`);
  assert.deepEqual([read.status, isAnswered], [200, false]);
  disk.resolve();
  assert.equal(await answer, 201);
});

test("what can't be made durable is answered with 503 and the reason", async (t) => {
  const running = await runApi();
  t.after(() => running.api.close());
  running.settleWith(async () => {
    throw new VolantError("not_ready", "the database can't be made safe on its disk: EIO", { hint: "look" });
  });
  const checksum = `sha256:${"b".repeat(64)}`;
  const response = await fetch(`${running.address}/api/v1/images/${checksum}`, { method: "HEAD" });
  assert.equal(response.status, 404, "reading goes on");
  running.images.set(manifest.initramfs.checksum, Buffer.from("hello"));
  const body = JSON.stringify(manifest);
  const refused = await fetch(`${running.address}/api/v1/plugins`, { method: "POST", headers: json, body });
  assert.equal(refused.status, 503);
  assert.deepEqual(await refused.json(), {
    error: "the database can't be made safe on its disk: EIO",
    code: "not_ready",
    hint: "look",
  });
});
