import assert from "node:assert/strict";
import test from "node:test";
import { VolantError } from "@volant/contract";
import { KeyedRequests } from "./keyed-requests.ts";
import { Bench, managed, manifest, request } from "../testing/engine-bench.ts";
import { MemoryImages } from "../testing/memory-host.ts";
import { PluginService } from "./plugin-service.ts";

const nothingStored = { answeredRequest: () => undefined };

test("a repetition waits for the answer of what is under way, another body is refused, and what failed is tried anew", async () => {
  const requests = new KeyedRequests(nothingStored);
  const answer = Promise.withResolvers<string>();
  let made = 0;
  const make = () => {
    made += 1;
    return answer.promise;
  };
  const first = requests.run("create", "k", { a: 1, b: { c: 2, d: 3 } }, make);
  const same = requests.run("create", "k", { b: { d: 3, c: 2 }, a: 1 }, make);
  await assert.rejects(requests.run("create", "k", { a: 2 }, make), { code: "key_reused" });
  const elsewhere = requests.run("install", "k", { a: 2 }, async () => "of another route");
  assert.equal(await elsewhere, "of another route");
  answer.reject(new VolantError("exhausted", "full"));
  await assert.rejects(first, { code: "exhausted" });
  await assert.rejects(same, { code: "exhausted" });
  assert.equal(made, 1);
  assert.equal(await requests.run("create", "k", { a: 2 }, async () => "anew"), "anew");
});

test("a VM and its answer are remembered together: by the next volantd, after a change and after the VM is deleted", async () => {
  const bench = new Bench();
  const first = await bench.open();
  const made = await first.vms.create(request("web"), "k");
  await bench.settle(first);
  await first.configs.patch("web", { restart: "always" });
  await first.engine.close();
  const next = await bench.open();
  assert.deepEqual(await next.vms.create(request("web"), "k"), made);
  assert.equal(made.status, "pending");
  await assert.rejects(next.vms.create(request("other"), "k"), { code: "key_reused" });
  await assert.rejects(next.vms.create(request("web"), "another"), { code: "exists" });
  await next.vms.delete("web");
  assert.deepEqual(await next.vms.create(request("web"), "k"), made);
  assert.deepEqual(bench.store.vmIds(), [], "nothing is made a second time");
  await next.engine.close();
  bench.store.close();
});

test("a plugin is installed once for a key, and the manifest that a key stands for is one", async () => {
  const { store } = new Bench();
  const ignore = () => {};
  const log = { info: ignore, warn: ignore, error: ignore };
  const plugins = new PluginService({
    store,
    images: new MemoryImages(),
    managed,
    log,
    monotonicMs: () => performance.now(),
  });
  const other = { ...manifest, name: "other" };
  const [first, second] = await Promise.all([plugins.install(other, "k"), plugins.install(other, "k")]);
  assert.deepEqual(second, first);
  assert.deepEqual(await plugins.install(other, "k"), first);
  await assert.rejects(plugins.install({ ...other, version: "2" }, "k"), { code: "key_reused" });
  await assert.rejects(plugins.install(other), { code: "exists" });
  store.close();
});
