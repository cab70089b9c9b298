/** The client against a real API over loopback. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";
import type { Vm } from "@volant/contract";
import { VolantClient, VolantError, type ErrorCode } from "./index.ts";
import { hopeless } from "./wait.ts";

let running: RunningApi;
let volant: VolantClient;
const file = Buffer.from("a small archive");
const checksum = `sha256:${createHash("sha256").update(file).digest("hex")}`;
const manifest = {
  name: "hello",
  version: "1.0.0",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: {},
  initramfs: { url: "file:///hello.cpio", checksum },
};

before(async () => {
  running = await runApi({ apiKey: "k" });
  volant = new VolantClient({ baseUrl: `${running.address}/`, apiKey: "k" });
});
after(() => running.api.close());

function failure(code: ErrorCode, sentence: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof VolantError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, sentence);
    return true;
  };
}

test("a file is handed over as a stream or a blob and verified", async () => {
  assert.equal(await volant.images.has(checksum), false);
  async function* pieces(): AsyncGenerator<Uint8Array> {
    yield file.subarray(0, 5);
    yield file.subarray(5);
  }
  await volant.images.put(checksum, pieces());
  assert.equal(await volant.images.has(checksum), true);
  await volant.images.put(checksum, new Blob([file]));
  await assert.rejects(volant.images.put(checksum, new Blob(["x"])), failure("checksum_mismatch", /does not have/));
});

test("a program is run in a VM to its end, a console's end is read, and any route is called by its id", async () => {
  await volant.vms.create({ name: "runs" });
  const result = { exit_code: 0, stderr: "", timed_out: false, truncated: false };
  assert.deepEqual(await volant.vms.run("runs", { command: ["echo", "hi"] }), { ...result, stdout: "hi\n" });
  await assert.rejects(volant.vms.run("runs", { command: ["none"] }), failure("not_found", /no program "none"/));
  const tail = { name: "runs", lines: ["the workload has started"] };
  assert.deepEqual(await volant.vms.consoleTail("runs", { lines: 1 }), tail);
  const { body, headers } = await volant.call("vms.list", { query: { q: "runs", limit: 1 } });
  assert.deepEqual([(body as Vm[]).map(({ name }) => name), headers.get("x-total-count")], [["runs"], "1"]);
  await assert.rejects(volant.call("vms.get", { params: { name: "none" } }), failure("not_found", /"none"/));
  await volant.vms.delete("runs");
});

test("a source that fails while it is handed over fails the call with its own error", async () => {
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(10);
    throw new VolantError("invalid", "the disk is gone");
  }
  await assert.rejects(volant.images.put(checksum, broken()), failure("invalid", /the disk is gone/));
});

test("files go into a guest and out of it as streams, and a source that fails fails the call with its own error", async () => {
  await volant.vms.create({ name: "files" });
  const parts = [Buffer.alloc(100_000, 1), Buffer.alloc(50_000, 2)];
  async function* source(fail: boolean): AsyncGenerator<Uint8Array> {
    yield* parts;
    if (fail) throw new VolantError("wrong_state", "it became shorter");
  }
  const written = await volant.files.write("files", "/a b", { file: source(false), mode: "600" });
  assert.equal(written.bytes, 150_000);
  const read = new Response(await volant.files.read("files", "/a b"));
  assert.ok(Buffer.from(await read.arrayBuffer()).equals(Buffer.concat(parts)));
  await assert.rejects(volant.files.write("files", "/c", { archive: source(true) }), { code: "wrong_state" });
  await assert.rejects(volant.files.read("files", "/none"), { code: "not_found" });
  await volant.vms.delete("files");
});

test("plugins are installed, listed, shown, disabled, enabled", async () => {
  assert.equal((await volant.plugins.install(manifest)).version, "1.0.0");
  assert.deepEqual(await volant.plugins.list(), ["hello"]);
  assert.deepEqual((await volant.plugins.get("hello")).manifest, manifest);
  assert.equal((await volant.plugins.setEnabled("hello", false)).enabled, false);
  await assert.rejects(volant.plugins.manifest("hello"), failure("disabled", /disabled/));
  await volant.plugins.setEnabled("hello", true);
  assert.deepEqual(await volant.plugins.manifest("hello"), manifest);
  assert.equal((await volant.system.summary()).enabled_plugins, 1);
  assert.equal((await volant.system.info()).bridge, "vbr0");
  await volant.system.status();
});

test("artifacts of a plugin are added, listed after the manifest's, shown and removed", async () => {
  const made = await volant.artifacts.create("hello", { artifact_name: "disk", kind: "disk", checksum });
  assert.deepEqual([made.plugin, made.version, made.size_bytes], ["hello", "1.0.0", file.length]);
  const names = (await volant.artifacts.list("hello")).map(({ artifact_name: name }) => name);
  assert.deepEqual(names, ["initramfs", "disk"]);
  assert.deepEqual(await volant.artifacts.list("hello", { version: "9" }), []);
  assert.equal((await volant.artifacts.get("hello", "disk")).checksum, checksum);
  await volant.artifacts.delete("hello", { artifact_name: "disk" });
  await assert.rejects(volant.artifacts.get("hello", "disk"), failure("not_found", /no artifact "disk"/));
});

test("PCI devices are asked for by address, and a host without them says so", async () => {
  await assert.rejects(volant.vfio.info("0000:01:00.0"), failure("not_found", /no PCI device/));
  const verdict = await volant.vfio.validate(["01:00.0"], { allowlist: ["*"] });
  assert.deepEqual([verdict.valid, verdict.devices[0]?.address], [false, "0000:01:00.0"]);
  for (const call of ["groups", "bind", "unbind", "paths"] as const) {
    await assert.rejects(volant.vfio[call](["01:00.0"]), failure("not_found", /no PCI device/));
  }
  await assert.rejects(volant.vfio.info("../../etc"), failure("invalid", /pci_address/));
});

test("VMs are created, listed with the count before paging, started, stopped, restarted, deleted", async () => {
  for (const name of ["a", "b", "c"]) await volant.vms.create({ name, plugin: "hello" });
  const page = await volant.vms.list({ status: ["pending", "running"], limit: 2 });
  assert.deepEqual([page.vms.length, page.total], [2, 3]);
  await assert.rejects(volant.vms.start("a"), failure("wrong_state", /started already/));
  assert.equal((await volant.vms.stop("a")).status, "stopped");
  assert.equal((await volant.vms.start("a")).status, "pending");
  assert.equal((await volant.vms.restart("a")).status, "pending");
  for (const name of ["a", "b", "c"]) await volant.vms.delete(name);
  await assert.rejects(volant.vms.get("a"), failure("not_found", /"a"/));
});

test("a configuration is read, changed, and its past listed", async () => {
  await volant.vms.create({ name: "set", config: { env: { A: "1" } } });
  assert.deepEqual((await volant.vms.config("set")).config, { env: { A: "1" } });
  const changed = await volant.vms.setConfig("set", { network: { mode: "dhcp" }, env: null });
  assert.deepEqual([changed.version, changed.config], [2, { env: { A: "1" }, network: { mode: "dhcp" } }]);
  assert.deepEqual(
    (await volant.vms.configHistory("set")).map(({ version }) => version),
    [2, 1],
  );
  assert.equal((await volant.vms.configHistory("set", { limit: 1 })).length, 1);
  await assert.rejects(volant.vms.config("nobody"), failure("not_found", /"nobody"/));
  await volant.vms.delete("set");
});

test("a name with anything in it reaches the server as one path segment", async () => {
  await assert.rejects(volant.vms.get("../plugins"), failure("invalid", /VM name "..\/plugins"/));
  await assert.rejects(volant.vms.get("a?b#c"), failure("invalid", /must not contain "\?"/));
});

test("waiting ends when the VM runs, having shown each phase once", async () => {
  await volant.vms.create({ name: "w" });
  const phases: string[] = [];
  const waiting = volant.vms.wait("w", {
    onChange: (vm) => {
      phases.push(`${vm.status} ${vm.reason ?? ""}`);
      if (phases.length === 1) running.move("w", "starting", "waiting_for_agent");
      if (phases.length === 2) {
        running.feed.publish({ type: "VM_LOG", name: "w", timestamp: "2026-01-01T00:00:00.000Z", line: "x" });
        running.move("w", "running");
      }
    },
  });
  assert.equal((await waiting).status, "running");
  assert.deepEqual(phases, ["pending ", "starting waiting_for_agent", "running "]);
  while (running.feed.readers > 0) await new Promise(setImmediate);
});

test("waiting goes on where one look fails, as a browser's do when the host's network changes", async () => {
  let looks = 0;
  const client = new VolantClient({
    baseUrl: running.address,
    apiKey: "k",
    fetch: (url, init) => {
      if (!url.endsWith("/vms/w")) return fetch(url, init);
      looks += 1;
      return looks === 1 ? Promise.reject(new TypeError("Failed to fetch")) : fetch(url, init);
    },
  });
  assert.equal((await client.vms.wait("w")).name, "w");
  assert.equal(looks, 2);
});

test("waiting for a VM that crashes fails with the reason, then or later", async () => {
  const waiting = volant.vms.wait("w", {
    status: "stopped",
    onChange: () => running.move("w", "crashed", "kernel panic"),
  });
  await assert.rejects(waiting, failure("wrong_state", /"w" is crashed and not stopped: kernel panic/));
  await assert.rejects(volant.vms.wait("w"), failure("wrong_state", /kernel panic/));
  assert.equal((await volant.vms.wait("w", { status: "crashed" })).reason, "kernel panic");
});

test("waiting for a VM that is deleted, or never was, fails", async () => {
  await volant.vms.restart("w");
  const waiting = volant.vms.wait("w", { onChange: () => void running.useCases.vms.delete("w") });
  await assert.rejects(waiting, failure("not_found", /"w"/));
  await assert.rejects(volant.vms.wait("never"), failure("not_found", /"never"/));
});

test("waiting gives up after its time, and says how far the VM got", async () => {
  await volant.vms.create({ name: "slow" });
  await assert.rejects(
    volant.vms.wait("slow", { timeoutMs: 50 }),
    failure("timeout", /"slow" is not running after 0\.1 s: it is pending/),
  );
  const controller = new AbortController();
  const waiting = volant.vms.wait("slow", {
    signal: controller.signal,
    onChange: () => controller.abort(new Error("enough")),
  });
  await assert.rejects(waiting, /enough/);
});

test("a reader of events gets them over a restart of the API, without loss or repeat", async () => {
  const first = await runApi();
  let second: RunningApi | undefined;
  const client = new VolantClient({ baseUrl: first.address });
  const seen: string[] = [];
  try {
    await first.useCases.vms.create({ name: "a" });
    for await (const event of client.events({ afterId: 0, signal: AbortSignal.timeout(20_000) })) {
      seen.push(event.name);
      if (seen.length === 1) await first.useCases.vms.create({ name: "b" });
      if (seen.length === 2) {
        await first.api.close();
        second = await runApi({ listenPort: Number(new URL(first.address).port) });
        for (const name of ["a", "b", "c"]) await second.useCases.vms.create({ name });
      }
      if (seen.length === 3) break;
    }
    assert.deepEqual(seen, ["a", "b", "c"]);
  } finally {
    await first.api.close();
    await second?.api.close();
  }
});

test("a wrong key, a wrong address and a stranger on the port are told apart in one sentence", async () => {
  const wrong = new VolantClient({ baseUrl: running.address, apiKey: "x" });
  await assert.rejects(wrong.vms.list(), failure("unauthorized", /key is wrong/));
  await assert.rejects(wrong.images.has(checksum), failure("unauthorized", /key/));
  await assert.rejects(
    (async () => {
      for await (const event of wrong.events()) assert.fail(event.name);
    })(),
    failure("unauthorized", /key/),
  );
  const stranger = createServer((_request, response) => response.end("<html>")).listen(0, "127.0.0.1");
  await new Promise((resolve) => stranger.once("listening", resolve));
  const baseUrl = `http://127.0.0.1:${(stranger.address() as AddressInfo).port}`;
  await assert.rejects(new VolantClient({ baseUrl }).vms.list(), failure("not_ready", /is not volantd/));
  stranger.closeAllConnections();
  await new Promise((resolve) => stranger.close(resolve));
  await assert.rejects(
    new VolantClient({ baseUrl }).vms.list(),
    failure("not_ready", /volantd does not answer at http:\/\/127\.0\.0\.1:\d+: is it running\?/),
  );
});

test("a redirect is not followed: the key stays here", async () => {
  let asked = 0;
  const thief = createServer((_request, response) => {
    asked += 1;
    response.writeHead(302, { location: "/elsewhere" }).end();
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => thief.once("listening", resolve));
  const baseUrl = `http://127.0.0.1:${(thief.address() as AddressInfo).port}`;
  await assert.rejects(new VolantClient({ baseUrl, apiKey: "k" }).vms.list(), failure("not_ready", /./));
  assert.equal(asked, 1);
  thief.closeAllConnections();
  await new Promise((resolve) => thief.close(resolve));
});

test("a base URL that is none, or that holds a secret, is refused", () => {
  for (const baseUrl of ["127.0.0.1:7777", "ftp://x", "", "http://u:p@x", "http://x/?key=1"]) {
    assert.throws(() => new VolantClient({ baseUrl }), failure("invalid", /./), baseUrl);
  }
});

test("a create whose connection breaks is sent again with the same key, and so is its body; what makes nothing is not", async () => {
  const heard: (readonly [path: string, key: string | undefined, body: string])[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => (body += text));
    request.once("end", () => {
      heard.push([request.url ?? "", request.headers["idempotency-key"] as string | undefined, body]);
      if (heard.length < 3) request.socket.destroy();
      else response.writeHead(201, { "content-type": "application/json" }).end('{"name":"web"}');
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  const client = new VolantClient({ baseUrl: `http://127.0.0.1:${port}` });
  assert.equal((await client.vms.create({ name: "web" })).name, "web");
  assert.equal(heard.length, 3);
  assert.match(heard[0]?.[1] ?? "", /^[0-9a-f]{32}$/);
  assert.deepEqual(new Set(heard.map((one) => JSON.stringify(one))).size, 1);
  heard.length = 0;
  await assert.rejects(client.vms.start("web"), failure("not_ready", /does not answer/));
  assert.deepEqual(heard, [["/api/v1/vms/web/start", undefined, ""]]);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await assert.rejects(client.vms.create({ name: "web" }), failure("not_ready", /does not answer/));
});

test("a stop or delete that is not over in time fails with timeout, unless nobody wanted to wait", async () => {
  await volant.vms.create({ name: "calm" });
  running.move("calm", "running");
  assert.equal((await volant.vms.stop("calm", { waitMs: 0 })).status, "running");
  await volant.vms.delete("calm", { waitMs: 0 });
  assert.equal((await volant.vms.stop("calm", { waitMs: 5000 })).status, "stopped");
  await volant.vms.delete("calm", { waitMs: 5000 });
});

test("waiting goes on while a VM that crashed is to be started again", () => {
  const vm = { name: "web", status: "crashed", reason: "it broke" } as Vm;
  assert.match(hopeless(vm, "running")?.message ?? "", /is crashed and not running: it broke/);
  assert.equal(hopeless({ ...vm, next_restart_at: "2026-01-01T00:00:00.000Z" }, "running"), undefined);
});

test("a deployment's roll-out is waited for, and one that fails, is paused or takes too long says so", async () => {
  const { deployments } = volant;
  const created = await deployments.create({ name: "shop", replicas: 2, config: { plugin: "hello" } });
  assert.deepEqual([created.ready_replicas, created.rollout.state], [0, "progressing"]);
  const ready: number[] = [];
  const waiting = deployments.wait("shop", {
    timeoutMs: 60_000,
    onChange: ({ ready_replicas: now }) => {
      ready.push(now);
      if (now < 2) running.deployments.move("shop", now + 1, now === 1 ? "complete" : "progressing");
    },
  });
  assert.equal((await waiting).rollout.state, "complete");
  assert.deepEqual(ready, [0, 1, 2]);
  assert.equal((await deployments.scale("shop", 3)).desired_replicas, 3);
  assert.deepEqual((await deployments.update("shop", { config: { env: { A: "1" } } })).config.env, { A: "1" });
  await assert.rejects(
    deployments.wait("shop", { timeoutMs: 50 }),
    failure("timeout", /"shop" is not ready after 0.1 s/),
  );
  running.deployments.move("shop", 2, "failed", "shop-1 is ill");
  await assert.rejects(deployments.wait("shop"), failure("wrong_state", /has stopped: shop-1 is ill/));
  assert.equal((await deployments.rollback("shop", 1)).version, 1);
  running.deployments.move("shop", 2, "paused");
  assert.equal((await deployments.pause("shop")).paused, true);
  await assert.rejects(deployments.wait("shop"), failure("wrong_state", /paused/));
  assert.equal((await deployments.resume("shop")).paused, false);
  assert.deepEqual(
    (await deployments.history("shop", { limit: 1 })).map(({ version }) => version),
    [2],
  );
  assert.equal((await deployments.list()).length, 1);
  await deployments.delete("shop");
  await assert.rejects(deployments.get("shop"), failure("not_found", /"shop"/));
  await assert.rejects(deployments.wait("shop"), failure("not_found", /"shop"/));
});
