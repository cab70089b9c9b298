/** Deployments with the stand-in hypervisor, real netlink and a real store: what users do, what goes wrong, and volantd killed in the middle. */
import assert from "node:assert/strict";
import test, { after, afterEach, before } from "node:test";
import type { Deployment, DeploymentPatch, Vm } from "@volant/contract";
import { enterOwnNamespace } from "../namespace.ts";
import { findProcesses } from "../vm/house.ts";
import { StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

const LIMIT_MS = 120_000;
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open();
});

after(async () => {
  await at?.close();
});

afterEach(async () => {
  for (const { name } of await at.ask<Deployment[]>(200, "GET", "deployments")) await remove(name);
});

function create(name: string, replicas: number, settings: object = {}): Promise<Deployment> {
  const config = { plugin: "probe", resources: { cpu_cores: 1, memory_mb: 96 } };
  return at.ask<Deployment>(201, "POST", "deployments", { name, replicas, config, min_ready_ms: 0, ...settings });
}

function change(name: string, patch: DeploymentPatch): Promise<Deployment> {
  return at.ask<Deployment>(200, "PATCH", `deployments/${name}`, patch);
}

async function remove(name: string): Promise<void> {
  await at.ask(204, "DELETE", `deployments/${name}`);
}

/** Looks now and after every event, until it is so; says what was seen last when it never is. */
async function until(name: string, done: (deployment: Deployment, vms: readonly Vm[]) => boolean): Promise<Deployment> {
  const signal = AbortSignal.timeout(LIMIT_MS);
  let seen: Deployment | undefined;
  let vms: readonly Vm[] = [];
  try {
    const response = await fetch("http://127.0.0.1:7777/api/v1/events/vms", { signal });
    for await (const _ of response.body ?? []) {
      seen = await at.ask<Deployment>(200, "GET", `deployments/${name}`);
      vms = await at.list();
      if (done(seen, vms)) return seen;
    }
  } catch (error) {
    const states = vms.map((vm) => `${vm.name} ${vm.status} (${vm.reason ?? "no reason"})`);
    const text = JSON.stringify({ ...seen, config: undefined });
    throw new Error(`not so within ${LIMIT_MS} ms: ${text}, ${states.join(", ")}`, { cause: error });
  }
  throw new Error("the stream of events ended");
}

const isDone = ({ rollout, ready_replicas, desired_replicas }: Deployment, vms: readonly Vm[]): boolean =>
  rollout.state === "complete" && ready_replicas === desired_replicas && vms.length === desired_replicas;

const names = async (): Promise<string[]> => (await at.list()).map(({ name }) => name).sort();

test("three are made, a killed one is back with its address, and scaling makes and removes; nothing is left", async () => {
  await create("web", 3, { min_ready_ms: 500 });
  await until("web", isDone);
  const before = await at.ask<Vm>(200, "GET", "vms/web-2");
  assert.equal(before.deployment, "web");
  process.kill(before.pid ?? 0, "SIGKILL");
  await until("web", (_, vms) =>
    vms.some(({ name, pid }) => name === "web-2" && pid !== before.pid && pid !== undefined),
  );
  await until("web", isDone);
  const after = await at.ask<Vm>(200, "GET", "vms/web-2");
  assert.deepEqual([after.id, after.ip_address, after.mac_address], [before.id, before.ip_address, before.mac_address]);
  await change("web", { replicas: 5 });
  await until("web", isDone);
  await change("web", { replicas: 2 });
  await until("web", isDone);
  assert.deepEqual(await names(), ["web-1", "web-2"]);
  await at.ask(204, "DELETE", "vms/web-1");
  await until("web", isDone);
  assert.deepEqual(await names(), ["web-1", "web-2"]);
  await remove("web");
  assert.deepEqual(at.leaks(), []);
});

test("volar waits for a deployment and its roll-outs", async () => {
  const args = ["--plugin", "probe", "--memory", "96", "--replicas", "2", "--wait=2m"];
  const created = await at.house.volarJson<Deployment>("deployments", "create", "web", ...args);
  assert.deepEqual([created.ready_replicas, created.rollout], [2, { state: "complete" }]);
  const changed = await at.house.volarJson<Deployment>("deployments", "update", "web", "--env", "A=1", "--wait=2m");
  assert.deepEqual([changed.version, changed.updated_replicas, changed.rollout.state], [2, 2, "complete"]);
  await at.house.volarDone("deployments", "delete", "web");
  assert.deepEqual(at.leaks(), []);
});

test("a change is rolled out one by one; one that never calls home, or is ill, stops it, and a rollback puts it right", async () => {
  await create("web", 3, { ready_timeout_ms: 4000 });
  await until("web", isDone);
  const pids = async () => new Map((await at.list()).map(({ name, pid }) => [name, pid]));
  await change("web", { ready_timeout_ms: 60_000, config: { env: { A: "1" } } });
  let most = 0;
  await until("web", (now, vms) => {
    most = Math.max(most, vms.filter(({ status }) => status !== "running").length);
    return isDone(now, vms);
  });
  assert.ok(most <= 1, `${most} were down at once`);
  const good = await pids();
  for (const [index, fault] of ["standin.silent", "standin.unhealthy"].entries()) {
    await change("web", { ready_timeout_ms: 4000, config: { kernel_cmdline: fault } });
    const failed = await until("web", ({ rollout }) => rollout.state === "failed");
    assert.match(
      failed.rollout.reason ?? "",
      new RegExp(`^web-1 is not ready 4 s after it was given version ${index + 3}: it is starting`),
    );
    assert.deepEqual([failed.updated_replicas, failed.ready_replicas], [1, 2]);
    await change("web", { ready_timeout_ms: 60_000 });
    await at.ask(200, "POST", "deployments/web/rollback", { version: 2 });
    await until("web", isDone);
    const now = await pids();
    assert.deepEqual(
      [now.get("web-2"), now.get("web-3")],
      [good.get("web-2"), good.get("web-3")],
      "the others went on",
    );
  }
  await remove("web");
  assert.deepEqual(at.leaks(), []);
});

test("guests that end again and again are started again each time, and say why they ended", async () => {
  const news = await fetch("http://127.0.0.1:7777/api/v1/events/vms", { signal: AbortSignal.timeout(LIMIT_MS) });
  await create("web", 1, { config: { plugin: "probe", kernel_cmdline: "standin.panic_after_ms=1000" } });
  let heard = "";
  for await (const part of news.body ?? []) {
    heard += Buffer.from(part).toString();
    if (heard.split("event: VM_CRASHED").length > 3) break;
  }
  const told = [...heard.matchAll(/^event: VM_CRASHED\n|"message":"started again by its deployment"/gm)].map(([text]) =>
    text.slice(0, 9),
  );
  assert.deepEqual(
    told.slice(0, 5),
    ["event: VM", '"message"', "event: VM", '"message"', "event: VM"],
    "each end is told before the next start",
  );
  assert.match(heard, /panicked/);
  await remove("web");
  assert.deepEqual(at.leaks(), []);
});

test("a version whose guests are ready at first and end soon after does not get beyond the first replica", async () => {
  await create("web", 2, { ready_timeout_ms: 60_000 });
  await until("web", isDone);
  const config = { kernel_cmdline: "standin.panic_after_ms=2000" };
  await change("web", { min_ready_ms: 30_000, ready_timeout_ms: 1000, config });
  const failed = await until("web", ({ rollout }) => rollout.state === "failed");
  assert.match(failed.rollout.reason ?? "", /^web-1 has not been ready for 30 s, 31 s after it was given version 2/);
  assert.equal(failed.updated_replicas, 1);
  await remove("web");
  assert.deepEqual(at.leaks(), []);
});

/** Numbers from 0 up to `below`, the same in each run: what it does can be looked at again. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    // Numerical Recipes' linear congruential generator.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test("volantd that is killed again and again in the middle of roll-outs and scales loses nothing, starts nothing twice and comes to the end", async () => {
  const random = generator(4);
  await create("web", 3);
  let replicas = 3;
  for (let round = 1; round <= 8; round += 1) {
    replicas = 2 + random(3);
    await change("web", { replicas, config: { env: { ROUND: String(round) } } });
    const events = random(12);
    let seen = 0;
    await until("web", (now, vms) => seen++ >= events || isDone(now, vms));
    await at.house.stopVolantd("SIGKILL");
    await at.house.startVolantd();
  }
  const last = await until("web", isDone);
  assert.deepEqual([last.version, last.updated_replicas], [9, replicas]);
  const vms = await at.list();
  assert.deepEqual(
    vms.map(({ name }) => name).sort(),
    Array.from({ length: replicas }, (_none, index) => `web-${index + 1}`),
  );
  for (const { name, id, pid } of vms) {
    const { config } = await at.ask<{ config: { env?: object } }>(200, "GET", `vms/${name}/config`);
    assert.deepEqual(config.env, { ROUND: "8" });
    assert.deepEqual(findProcesses(`volant:${at.installation}:${id}:`), [pid]);
  }
  // Killed in the middle of the deletion, too: a row that is on its way out is the first that is heard of it.
  const news = await fetch("http://127.0.0.1:7777/api/v1/events/vms", { signal: AbortSignal.timeout(LIMIT_MS) });
  const deleting = fetch("http://127.0.0.1:7777/api/v1/deployments/web", { method: "DELETE" }).catch(() => undefined);
  for await (const part of news.body ?? []) if (Buffer.from(part).includes("deleting")) break;
  await at.house.stopVolantd("SIGKILL");
  await deleting;
  await at.house.startVolantd();
  const left = await at.ask<Deployment[]>(200, "GET", "deployments");
  if (left.length > 0) await remove("web");
  assert.deepEqual(at.leaks(), []);
});
