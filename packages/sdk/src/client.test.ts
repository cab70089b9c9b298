/** The client against a real API over loopback. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";
import { VolantClient, VolantError, type ErrorCode } from "./index.ts";

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

test("a source that fails while it is handed over fails the call with its own error", async () => {
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(10);
    throw new VolantError("invalid", "the disk is gone");
  }
  await assert.rejects(volant.images.put(checksum, broken()), failure("invalid", /the disk is gone/));
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
