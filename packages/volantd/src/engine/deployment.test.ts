/** Deployments on a host in memory, with the real engine and store. */
import assert from "node:assert/strict";
import test from "node:test";
import type { Deployment } from "@volant/contract";
import { Bench, type Running } from "../testing/engine-bench.ts";

const LIMIT_MS = 20_000;

/** Waits until a deployment is as it should be, looking after each event; says what it was like when it never is. */
async function until(
  { deployments, hub }: Running,
  name: string,
  done: (deployment: Deployment) => boolean,
): Promise<Deployment> {
  const signal = AbortSignal.timeout(LIMIT_MS);
  const feed = hub.subscribe({ signal });
  let seen = deployments.get(name);
  if (done(seen)) return seen;
  for await (const _event of feed) {
    seen = deployments.get(name);
    if (done(seen)) return seen;
  }
  throw new Error(`not so within ${LIMIT_MS} ms: ${JSON.stringify(seen)}`);
}

const isDone = ({ rollout, ready_replicas, desired_replicas }: Deployment): boolean =>
  rollout.state === "complete" && ready_replicas === desired_replicas;

const names = (running: Running): string[] => running.vms.list({}).vms.map(({ name }) => name);

async function close(bench: Bench, { keeper, engine }: Running): Promise<void> {
  await keeper.close();
  await engine.close();
  bench.store.close();
}

test("replicas are named from 1, show their deployment, and are ready when they are well; scaling removes the highest and makes the lowest missing", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments, vms } = running;
  const created = await deployments.create({ min_ready_ms: 0, name: "web", replicas: 3, config: { plugin: "hello" } });
  assert.deepEqual([created.desired_replicas, created.ready_replicas, created.rollout.state], [3, 0, "progressing"]);
  await until(running, "web", isDone);
  assert.deepEqual(names(running), ["web-1", "web-2", "web-3"]);
  assert.deepEqual(vms.get("web-2").deployment, "web");
  await deployments.patch("web", { replicas: 1 });
  await until(running, "web", () => names(running).length === 1);
  assert.deepEqual(names(running), ["web-1"]);
  await deployments.patch("web", { replicas: 3 });
  await until(running, "web", isDone);
  await vms.delete("web-2");
  await until(running, "web", (now) => isDone(now) && names(running).includes("web-2"));
  await deployments.patch("web", { replicas: 0 });
  await until(running, "web", () => names(running).length === 0);
  await deployments.delete("web");
  assert.throws(() => deployments.get("web"), { code: "not_found" });
  await bench.settle(running);
  bench.assertAgreement();
  const types = running.events.map(({ type }) => type).filter((type) => type.startsWith("DEPLOYMENT_"));
  assert.deepEqual([types[0], types.at(-1)], ["DEPLOYMENT_CREATED", "DEPLOYMENT_DELETED"]);
  await close(bench, running);
});

test("a roll-out is waited for until it is complete, has failed or is paused; a deletion ends the wait, and a time that is up changes nothing", async () => {
  const bench = new Bench();
  makeIll(bench);
  const running = await bench.open();
  const { deployments } = running;
  const soon = { timeoutMs: LIMIT_MS };
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 2, config: { plugin: "hello" } });
  assert.equal(await deployments.wait("web", { timeoutMs: 0 }), false);
  assert.equal(await deployments.wait("web", soon), true);
  assert.equal(isDone(deployments.get("web")), true);
  await deployments.patch("web", { replicas: 3 });
  assert.equal(await deployments.wait("web", soon), true);
  assert.equal(deployments.get("web").ready_replicas, 3);
  await deployments.patch("web", { ready_timeout_ms: 1, config: { kernel_cmdline: "ill" } });
  assert.equal(await deployments.wait("web", soon), true);
  assert.equal(deployments.get("web").rollout.state, "failed");
  await deployments.patch("web", { paused: true, config: { env: { A: "1" } } });
  assert.equal(await deployments.wait("web", soon), true);
  assert.equal(deployments.get("web").rollout.state, "paused");
  const left = new AbortController();
  await deployments.rollback("web", 1);
  await deployments.patch("web", { paused: false, config: { kernel_cmdline: "ill" }, ready_timeout_ms: 600_000 });
  const nobody = deployments.wait("web", { ...soon, signal: left.signal });
  const waits = assert.rejects(deployments.wait("web", soon), { code: "not_found", message: /was deleted while/ });
  left.abort();
  assert.equal(await nobody, false);
  await assert.rejects(deployments.delete("web", { timeoutMs: 0 }), { code: "timeout" });
  await waits;
  await deployments.delete("web", soon);
  await bench.settle(running);
  bench.assertAgreement();
  await close(bench, running);
});

test("a deployment is made once for a key: for the next volantd, too, and after it is deleted", async () => {
  const bench = new Bench();
  const first = await bench.open();
  const asked = { min_ready_ms: 0, name: "web", replicas: 1, config: { plugin: "hello" } };
  const [made, same] = await Promise.all([first.deployments.create(asked, "k"), first.deployments.create(asked, "k")]);
  assert.deepEqual(same, made);
  await until(first, "web", isDone);
  await first.keeper.close();
  await first.engine.close();
  const next = await bench.open();
  assert.deepEqual(await next.deployments.create(asked, "k"), made);
  await assert.rejects(next.deployments.create({ ...asked, replicas: 2 }, "k"), { code: "key_reused" });
  await assert.rejects(next.deployments.create(asked, "another"), { code: "exists" });
  await next.deployments.delete("web");
  assert.deepEqual(await next.deployments.create(asked, "k"), made);
  assert.deepEqual(names(next), [], "nothing is made a second time");
  await close(bench, next);
});

/** Guests of these VMs are ill whose kernel was given this word. */
function makeIll(bench: Bench): void {
  bench.host.isWell = (vmId) => bench.store.getVm(vmId)?.spec.kernelCmdline !== "ill";
}

test("a change of the configuration reaches one replica after the other, where it is: name, id, address and MAC stay", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments, vms, configs, hub } = running;
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 3, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  const identity = () =>
    vms.list({}).vms.map(({ id, name, ip_address, mac_address }) => [id, name, ip_address, mac_address]);
  const before = identity();
  let fewest = 3;
  const publish = hub.publish.bind(hub);
  hub.publish = (event) => {
    fewest = Math.min(fewest, deployments.get("web").ready_replicas);
    publish(event);
  };
  const changed = await deployments.patch("web", { config: { env: { A: "1" } } });
  assert.deepEqual([changed.version, changed.updated_replicas, changed.config.env], [2, 0, { A: "1" }]);
  await until(running, "web", isDone);
  assert.deepEqual(identity(), before);
  assert.equal(fewest, 2);
  assert.deepEqual(
    ["web-1", "web-2", "web-3"].map((name) => [configs.get(name).config.env, configs.get(name).pending]),
    Array.from({ length: 3 }, () => [{ A: "1" }, false]),
  );
  const again = await deployments.patch("web", { config: { env: { A: "1" } } });
  assert.equal(again.version, 2, "what changes nothing is no version");
  const generation = () => bench.store.findVm("web-1")?.generation;
  const started = generation();
  await deployments.patch("web", { config: { expose: [{ port: 80 }] } });
  await until(running, "web", (now) => isDone(now) && now.version === 3);
  assert.equal(generation(), started, "what needs no start makes none");
  assert.deepEqual(
    deployments.history("web").map(({ version, replicas }) => [version, replicas]),
    [
      [3, 3],
      [2, 0],
      [1, 0],
    ],
  );
  await bench.settle(running);
  bench.assertAgreement();
  await close(bench, running);
});

test("a version that never gets ready stops after one replica, with the reason; a rollback changes that one back and no other", async () => {
  const bench = new Bench();
  makeIll(bench);
  const running = await bench.open();
  const { deployments } = running;
  await deployments.create({
    min_ready_ms: 0,
    name: "web",
    replicas: 3,
    config: { plugin: "hello" },
    ready_timeout_ms: 1000,
  });
  await until(running, "web", isDone);
  await deployments.patch("web", { config: { kernel_cmdline: "ill" } });
  const failed = await until(running, "web", ({ rollout }) => rollout.state === "failed");
  assert.match(failed.rollout.reason ?? "", /^web-1 is not ready 1 s after it was given version 2: it is starting/);
  assert.deepEqual([failed.updated_replicas, failed.ready_replicas, failed.unavailable], [1, 2, 1]);
  const generations = () => ["web-1", "web-2", "web-3"].map((name) => bench.store.findVm(name)?.generation);
  assert.deepEqual(generations(), [2, 1, 1]);
  const scaled = await deployments.patch("web", { replicas: 4 });
  assert.equal(scaled.rollout.state, "failed");
  await until(running, "web", ({ ready_replicas }) => ready_replicas === 3);
  assert.equal(bench.store.findVm("web-4")?.replica?.version, 1, "what has not been proven is not made more of");
  const resumed = await deployments.patch("web", { paused: false });
  assert.equal(resumed.rollout.state, "progressing", "somebody wants it tried again");
  await until(running, "web", ({ rollout }) => rollout.state === "failed");
  const back = await deployments.rollback("web", 1);
  assert.deepEqual([back.version, back.config.kernel_cmdline], [1, undefined]);
  await until(running, "web", isDone);
  assert.deepEqual(generations(), [3, 1, 1]);
  await assert.rejects(deployments.rollback("web", 9), { code: "not_found", message: /version 9/ });
  await bench.settle(running);
  bench.assertAgreement();
  const news = running.events.filter(({ type }) => type === "DEPLOYMENT_UPDATED").map(({ message }) => message);
  assert.ok(
    news.some((text) => text?.startsWith("version 2 failed")) && news.at(-1)?.startsWith("version 1 complete"),
    news.join("; "),
  );
  await close(bench, running);
});

test("a pause holds a roll-out where it is, also for a rollback and a scale, until it is resumed", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments } = running;
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 2, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  await deployments.patch("web", { paused: true, config: { env: { A: "1" } } });
  await deployments.patch("web", { replicas: 3 });
  const paused = await until(running, "web", ({ ready_replicas }) => ready_replicas === 3);
  assert.deepEqual([paused.rollout.state, paused.updated_replicas, paused.paused], ["paused", 0, true]);
  await deployments.patch("web", { paused: false });
  await until(running, "web", isDone);
  await deployments.patch("web", { paused: true });
  assert.equal((await deployments.rollback("web", 1)).rollout.state, "paused");
  await deployments.patch("web", { paused: false });
  await until(running, "web", (now) => isDone(now) && now.version === 1);
  await bench.settle(running);
  bench.assertAgreement();
  await close(bench, running);
});

test("a scale, another change and a deletion in the middle of a roll-out each have their way", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments } = running;
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 3, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  await deployments.patch("web", { config: { env: { A: "2" } } });
  await until(running, "web", ({ updated_replicas }) => updated_replicas >= 1);
  await deployments.patch("web", { replicas: 5 });
  await deployments.patch("web", { config: { env: { A: "3" } } });
  await until(running, "web", isDone);
  const environments = running.vms.list({}).vms.map(({ name }) => bench.store.findVm(name)?.spec.config.env);
  assert.deepEqual(
    environments,
    Array.from({ length: 5 }, () => ({ A: "3" })),
  );
  await deployments.patch("web", { config: { env: { A: "4" } } });
  await until(running, "web", ({ updated_replicas }) => updated_replicas >= 1);
  const both = await Promise.allSettled([deployments.delete("web"), deployments.delete("web")]);
  assert.deepEqual(
    both.map(({ status }) => status),
    ["fulfilled", "fulfilled"],
  );
  assert.deepEqual(names(running), []);
  await bench.settle(running);
  bench.assertAgreement();
  await close(bench, running);
});

test("a replica whose hypervisor is killed is started again as it was, and counts as ready when it is", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments, vms } = running;
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 2, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  const { id, ip_address: address, pid = 0 } = vms.get("web-1");
  bench.host.end(pid, "host-signal");
  await until(running, "web", ({ ready_replicas }) => ready_replicas === 1);
  await until(running, "web", isDone);
  const crash = running.events.findIndex(({ type }) => type === "VM_CRASHED");
  const again = running.events.findIndex(({ message }) => message === "started again by its deployment");
  assert.ok(crash >= 0 && crash < again, "its end is told before it is started again");
  assert.deepEqual(
    [vms.get("web-1").id, vms.get("web-1").ip_address, vms.get("web-1").pid === pid],
    [id, address, false],
  );
  await vms.restart("web-2");
  await until(running, "web", ({ ready_replicas }) => ready_replicas === 1);
  await until(running, "web", isDone);
  await bench.settle(running);
  bench.assertAgreement();
  await close(bench, running);
});

test("a step that was planned from older rows, and no longer holds, is not done", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments, executor } = running;
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 2, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  const id = bench.store.deployments.find("web")?.id ?? 0;
  const vmId = bench.store.findVm("web-1")?.id ?? 0;
  await deployments.patch("web", { paused: true, config: { env: { A: "1" } } });
  const rows = () => JSON.stringify(bench.store.deployments.replicas(id));
  const before = rows();
  await executor.execute(id, { kind: "start", vmId });
  await executor.execute(id, { kind: "update", vmId, version: 2 });
  await executor.execute(id, { kind: "create", index: 3, version: 2 });
  await executor.execute(id, { kind: "create", index: 2, version: 2 });
  await executor.execute(999, { kind: "create", index: 1, version: 1 });
  await executor.execute(id, { kind: "delete", vmId: 999 });
  assert.equal(rows(), before);
  await deployments.patch("web", { paused: false });
  await until(running, "web", isDone);
  await executor.execute(id, { kind: "update", vmId, version: 1 });
  assert.equal(bench.store.getVm(vmId)?.replica?.version, 2, "another version is wanted by now");
  await bench.settle(running);
  bench.assertAgreement();
  await close(bench, running);
});

test("ready counts what guests say now, and not what they once were", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments } = running;
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 2, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  const ill = bench.store.findVm("web-2")?.id;
  bench.host.isWell = (vmId) => vmId !== ill;
  bench.host.guestNews.emit("network");
  const passes = AbortSignal.timeout(LIMIT_MS);
  while (deployments.get("web").ready_replicas !== 1) {
    passes.throwIfAborted();
    await new Promise(setImmediate);
  }
  assert.deepEqual(deployments.get("web").rollout, { state: "complete", reason: "1 of 2 replicas are ready" });
  await close(bench, running);
});

test("a replica whose agent has stopped answering is not ready until it answers again; one with a restart policy that hangs is started again once", async () => {
  const bench = new Bench();
  const running = await bench.open(undefined, { hangTimeoutMs: 1000 });
  const { deployments, vms } = running;
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 1, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  bench.host.guestNews.emit("silent");
  await until(running, "web", ({ ready_replicas: ready }) => ready === 0);
  bench.host.guestNews.emit("answering");
  await until(running, "web", isDone);
  await deployments.patch("web", { config: { plugin: "hello", restart: "on-failure" } });
  await until(running, "web", isDone);
  const before = bench.store.findVm("web-1")?.generation ?? 0;
  bench.host.guestNews.emit("silent");
  await until(running, "web", ({ ready_replicas: ready }) => ready === 0);
  await until(running, "web", isDone);
  await bench.settle(running);
  assert.deepEqual([bench.store.findVm("web-1")?.generation, vms.get("web-1").restarts], [before + 1, 0]);
  bench.assertAgreement();
  await close(bench, running);
});

test("a VM that has a replica's name is an error of the create or scale that would need it, and nothing is made", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments, vms } = running;
  await vms.create({ name: "web-2", plugin: "hello" });
  const collision = { code: "exists", message: /VM named "web-2" exists/ };
  await assert.rejects(
    deployments.create({ min_ready_ms: 0, name: "web", replicas: 3, config: { plugin: "hello" } }),
    collision,
  );
  assert.throws(() => deployments.get("web"), { code: "not_found" });
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 1, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  await assert.rejects(deployments.patch("web", { replicas: 2 }), collision);
  assert.equal(deployments.get("web").desired_replicas, 1);
  assert.deepEqual(names(running), ["web-1", "web-2"]);
  await vms.delete("web-2");
  await deployments.patch("web", { replicas: 2 });
  await until(running, "web", isDone);
  const taken = vms.delete("web-2");
  await assert.rejects(vms.create({ name: "web-2", plugin: "hello" }), { code: "exists" });
  await taken;
  await assert.rejects(deployments.create({ min_ready_ms: 0, name: "web", config: { plugin: "hello" } }), {
    code: "exists",
  });
  await close(bench, running);
});

test("a name that a deployment owns is nobody else's, also before its replica is there", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { vms } = running;
  await vms.create({ name: "model", plugin: "hello" });
  const spec = bench.store.findVm("model")?.spec;
  assert.ok(spec !== undefined);
  // Only written down: nobody has told the keeper yet.
  const settings = { maxUnavailable: 1, readyTimeoutMs: 1000, minReadyMs: 0, paused: false };
  bench.store.deployments.create({ name: "web", replicas: 2, spec, ...settings });
  const owned = { code: "exists", message: /belongs to deployment "web"/ };
  await assert.rejects(vms.create({ name: "web-2", plugin: "hello" }), owned);
  for (const name of ["web-3", "web-02", "web-2x"]) await vms.create({ name, plugin: "hello" });
  assert.deepEqual(names(running), ["model", "web-02", "web-2x", "web-3"]);
  await close(bench, running);
});

test("what one VM alone can have is refused for several, in a sentence that says what to do", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments } = running;
  const expose = [{ port: 80, host_port: 8080 }];
  const cases: [config: Parameters<typeof deployments.create>[0]["config"], sentence: RegExp][] = [
    [{ expose }, /3 replicas can't all be reached through port 8080/],
    [{ ip_address: "10.0.0.9" }, /ip_address is for one VM/],
    [{ mac_address: "02:00:00:00:00:01" }, /mac_address is for one VM/],
    [{ network: { tap: "tap0" } }, /can't all have the tap "tap0"/],
  ];
  for (const [config, message] of cases) {
    const request = { name: "web", replicas: 3, config: { plugin: "hello", ...config } };
    await assert.rejects(deployments.create(request), { code: "invalid", message });
  }
  const long = { name: "x".repeat(61), replicas: 10, config: { plugin: "hello" } };
  await assert.rejects(deployments.create(long), { code: "invalid", message: /64 characters/ });
  await assert.rejects(deployments.create({ min_ready_ms: 0, name: "web", config: {} }), {
    code: "invalid",
    message: /needs a plugin/,
  });
  await assert.rejects(deployments.create({ min_ready_ms: 0, name: "web", config: { plugin: "none" } }), {
    code: "not_found",
  });
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 1, config: { plugin: "hello", expose } });
  await until(running, "web", isDone);
  await assert.rejects(deployments.patch("web", { replicas: 2 }), { code: "invalid", message: /port 8080/ });
  const other = deployments.create({
    min_ready_ms: 0,
    name: "other",
    replicas: 1,
    config: { plugin: "hello", expose },
  });
  await assert.rejects(other, { code: "in_use", message: /8080.*"web-1"/ });
  await deployments.patch("web", { replicas: 3, config: { expose: [{ port: 80 }] } });
  await until(running, "web", isDone);
  const ports = running.vms.list({}).vms.map(({ network }) => network.published?.[0]?.host_port);
  assert.equal(new Set(ports).size, 3, "each has a port of its own");
  await close(bench, running);
});

test("a replica's stop and configuration are its deployment's to say; a plugin that a deployment wants is needed", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments, vms, configs } = running;
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 1, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  const belongs = {
    code: "wrong_state",
    message: /"web-1" can't be (stopped|configured): it belongs to deployment "web"/,
  };
  await assert.rejects(vms.stop("web-1"), belongs);
  await assert.rejects(configs.patch("web-1", { env: {} }), belongs);
  await deployments.patch("web", { replicas: 0 });
  await until(running, "web", () => names(running).length === 0);
  assert.throws(() => bench.store.deletePlugin("hello"), { code: "in_use", message: /deployment "web"/ });
  await deployments.delete("web");
  assert.equal(bench.store.deletePlugin("hello"), true);
  await close(bench, running);
});

test("no address left is said, tried again, and over when there is one", async () => {
  const bench = new Bench();
  const pool = { subnet: { network: 0x0a000000, prefixLength: 30 }, gateway: 0x0a000001 };
  const running = await bench.open(undefined, { pool });
  const { deployments } = running;
  await deployments.create({ min_ready_ms: 0, name: "web", replicas: 2, config: { plugin: "hello" } });
  const full = await until(running, "web", ({ rollout }) => /address/.test(rollout.reason ?? ""));
  assert.deepEqual([full.rollout.state, full.desired_replicas], ["progressing", 2]);
  await deployments.patch("web", { replicas: 1 });
  await until(running, "web", isDone);
  await close(bench, running);
});

test("an engine that is cut off at any call to the host, and followed by another, comes to the same end", async () => {
  let cuts = 0;
  for (let effects = 0; ; effects += 1) {
    const bench = new Bench();
    const first = await bench.open(effects);
    const { life } = first;
    const alive = async (work: Promise<unknown>): Promise<void> => {
      let isDone = false;
      const done = work.catch(() => undefined).then(() => (isDone = true));
      const limit = AbortSignal.timeout(LIMIT_MS);
      while (!life.ended && !isDone) {
        limit.throwIfAborted();
        await new Promise(setImmediate);
      }
      if (isDone) await done;
    };
    await alive(first.deployments.create({ min_ready_ms: 0, name: "web", replicas: 2, config: { plugin: "hello" } }));
    if (!life.ended) await alive(until(first, "web", isDone));
    if (!life.ended) await alive(first.deployments.patch("web", { config: { env: { A: "1" } } }));
    if (!life.ended) await alive(until(first, "web", isDone));
    if (!life.ended) await alive(first.deployments.patch("web", { replicas: 1 }));
    if (!life.ended) await alive(until(first, "web", () => names(first).length === 1));
    const isOver = !life.ended;
    life.end();
    void first.keeper.close();
    const second = await bench.open();
    if (bench.store.deployments.find("web") !== undefined) {
      const isAllThere = (now: Deployment) => isDone(now) && names(second).length === now.desired_replicas;
      const last = await until(second, "web", isAllThere);
      assert.equal(bench.store.findVm("web-1")?.replica?.version, last.version);
      await second.deployments.delete("web");
    }
    assert.deepEqual(names(second), []);
    await bench.settle(second);
    bench.assertAgreement();
    await close(bench, second);
    if (isOver) break;
    cuts += 1;
  }
  assert.ok(cuts > 10, `${cuts} calls were cut off`);
});

test("a roll-out waits until a changed replica has been ready for a while, also where nothing else happens", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { deployments } = running;
  await deployments.create({ name: "web", replicas: 2, min_ready_ms: 300, config: { plugin: "hello" } });
  await until(running, "web", isDone);
  await deployments.patch("web", { config: { env: { A: "1" } } });
  const waiting = (now: Deployment) => now.updated_replicas === 1 && now.ready_replicas === 2;
  assert.equal((await until(running, "web", waiting)).rollout.state, "progressing");
  await until(running, "web", isDone);
  await bench.settle(running);
  bench.assertAgreement();
  await close(bench, running);
});
