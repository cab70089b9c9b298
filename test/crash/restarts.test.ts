/** Restarts by policy with the stand-in hypervisor: guests that panic, hang or power off, hypervisors and volantd that are killed; and requests that are repeated. */
import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import type { Vm, VmEvent } from "@volant/contract";
import { enterOwnNamespace } from "../namespace.ts";
import { findProcesses } from "../vm/house.ts";
import { inParallel, StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

const HANG_TIMEOUT_MS = 4000;
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open({ VOLANT_HANG_TIMEOUT_MS: String(HANG_TIMEOUT_MS) });
});

after(async () => {
  await at?.close();
});

function create(name: string, restart: string, words = ""): Promise<Vm> {
  const body = { name, plugin: "probe", memory_mb: 96, kernel_cmdline: words, config: { restart } };
  return at.ask<Vm>(201, "POST", "vms", body);
}

async function gone(name: string): Promise<void> {
  await at.delete(name);
  assert.deepEqual(at.leaks(), []);
}

test("a guest that panics again and again is started again after ever longer waits, says when, and stops for good when a user says so", async () => {
  await create("web", "on-failure", "standin.panic_after_ms=400");
  const waits: number[] = [];
  for (const restarts of [0, 1, 2]) {
    // When it is started again is written down first, and what it is shown as right after.
    const vm = await at.untilVm(
      "web",
      (now) => now.status === "crashed" && now.next_restart_at !== undefined && now.restarts === restarts,
    );
    assert.equal(vm.reason, "the guest's kernel panicked: the stand-in was told to panic");
    waits.push(Date.parse(vm.next_restart_at ?? "") - Date.parse(vm.updated_at));
  }
  const [first = 0, second = 0, third = 0] = waits;
  assert.ok(second > first && third > second, `${waits.join(", ")} ms`);
  const stopped = await at.ask<Vm>(200, "POST", "vms/web/stop");
  assert.deepEqual([stopped.status, stopped.next_restart_at], ["stopped", undefined]);
  await gone("web");
});

test("a hypervisor that is killed is replaced by another, and the crash's event tells of both", async () => {
  await create("web", "on-failure");
  const { pid = 0 } = await at.untilVm("web", ({ status }) => status === "running");
  const limit = AbortSignal.timeout(60_000);
  const events = await fetch("http://127.0.0.1:7777/api/v1/events/vms", { signal: limit });
  process.kill(pid, "SIGKILL");
  const crash = await nextEvent(events, "VM_CRASHED");
  assert.match(crash.message ?? "", /^the hypervisor was ended by SIGKILL\n/);
  assert.match(crash.message ?? "", /kestrel: stands in for a guest\nit is started again at 20\d\d-\S+Z$/);
  const again = await at.untilVm("web", ({ status, restarts }) => status === "running" && restarts === 1);
  assert.notEqual(again.pid, pid);
  await gone("web");
});

/** The first event of a type. @throws Error when the stream ends first */
async function nextEvent(response: Response, type: VmEvent["type"]): Promise<VmEvent> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of response.body ?? []) {
    text += decoder.decode(bytes, { stream: true });
    for (const line of text.split("\n").slice(0, -1)) {
      if (!line.startsWith("data: ")) continue;
      const event = JSON.parse(line.slice("data: ".length)) as VmEvent;
      if (event.type === type) return event;
    }
    text = text.slice(text.lastIndexOf("\n") + 1);
  }
  throw new Error(`the stream of events ended without ${type}`);
}

test("a guest that hangs is shown as silent while it runs, is ended after the limit, and started again", async () => {
  await create("web", "always", "standin.hang_after_ms=3000");
  await create("left", "no", "standin.hang_after_ms=3000");
  for (const name of ["web", "left"]) {
    // The reason is written down by the pass that follows.
    const vm = await at.untilVm(name, ({ agent, reason }) => agent.responding === false && reason !== undefined);
    assert.deepEqual([vm.status, vm.reason], ["running", "the guest's agent does not answer"]);
  }
  const { pid } = await at.ask<Vm>(200, "GET", "vms/left");
  const crashed = await at.untilVm("web", ({ status }) => status === "crashed");
  assert.match(crashed.reason ?? "", /^the guest's agent has not answered for \d+ s$/);
  await at.untilVm("web", ({ restarts }) => restarts === 1);
  const left = await at.ask<Vm>(200, "GET", "vms/left");
  assert.deepEqual([left.status, left.pid], ["running", pid], "without a policy nobody ends it");
  await at.delete("left");
  await gone("web");
});

test("a guest that powers itself off is started again where its policy is always, and nowhere else", async () => {
  await create("always", "always", "standin.poweroff_after_ms=500");
  await create("failing", "on-failure", "standin.poweroff_after_ms=500");
  await at.untilVm("always", ({ restarts = 0 }) => restarts >= 2);
  const vm = await at.untilVm("failing", ({ status }) => status === "stopped");
  assert.deepEqual([vm.restarts, vm.next_restart_at], [0, undefined]);
  await at.delete("failing");
  await gone("always");
});

test("a restart that volantd is killed before is made by the next, once", async () => {
  await create("web", "on-failure", "standin.panic_after_ms=300");
  const waiting = await at.untilVm("web", ({ restarts, next_restart_at: due }) => restarts === 2 && due !== undefined);
  await at.house.stopVolantd("SIGKILL");
  await at.house.startVolantd();
  const { restarts, next_restart_at: due, status } = await at.ask<Vm>(200, "GET", "vms/web");
  if (restarts === 2) assert.deepEqual([due, status], [waiting.next_restart_at, "crashed"]);
  await at.untilVm("web", (vm) => (vm.restarts ?? 0) >= 3);
  await gone("web");
});

interface Answer {
  readonly status: number;
  readonly vm: Vm;
}

async function post(path: string, key: string | undefined, body: object): Promise<Answer> {
  const headers = { "content-type": "application/json", ...(key === undefined ? {} : { "idempotency-key": key }) };
  const signal = AbortSignal.timeout(60_000);
  const response = await fetch(`http://127.0.0.1:7777/api/v1/${path}`, {
    method: "POST",
    headers,
    body: JSON.stringify(body),
    signal,
  });
  return { status: response.status, vm: (await response.json()) as Vm };
}

test("a create whose answer a kill of volantd swallowed is sent again with its key, and makes one VM", async () => {
  for (const [index, delayMs] of [0, 10, 60].entries()) {
    const name = `web-${index}`;
    const body = { name, plugin: "probe", memory_mb: 96 };
    const swallowed = post("vms", name, body).catch(() => undefined);
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    await at.house.stopVolantd("SIGKILL");
    const heard = await swallowed;
    await at.house.startVolantd();
    const first = await post("vms", name, body);
    assert.equal(first.status, 201, JSON.stringify(first.vm));
    if (heard !== undefined) assert.deepEqual(first, heard);
    const second = await post("vms", name, body);
    assert.deepEqual(second, first);
    assert.equal((await post("vms", undefined, body)).status, 409);
    assert.equal((await post("vms", name, { ...body, memory_mb: 97 })).status, 409);
  }
  assert.equal((await at.list()).length, 3);
  for (const { name } of await at.list()) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});

test("a request waits for what it asks for, and says so when it did not see it", async () => {
  const started = await post("vms?wait=60s", undefined, { name: "web", plugin: "probe", memory_mb: 96 });
  assert.deepEqual([started.status, started.vm.status], [201, "running"]);
  const again = await post("vms/web/restart?wait=60s", undefined, {});
  assert.deepEqual([again.status, again.vm.status], [200, "running"]);
  const silent = { name: "mute", plugin: "probe", memory_mb: 96, kernel_cmdline: "standin.silent" };
  const early = await post("vms?wait=300ms", undefined, silent);
  assert.equal(early.status, 202);
  assert.ok(["pending", "starting"].includes(early.vm.status), early.vm.status);
  const ended = { ...silent, name: "ended", kernel_cmdline: "standin.panic_after_ms=300" };
  const crashed = await post("vms?wait=60s", undefined, { ...ended, config: { restart: "no" } });
  assert.equal(crashed.status, 201);
  assert.match(`${crashed.vm.status}: ${crashed.vm.reason}`, /^(running|crashed: the guest's kernel panicked)/);
  for (const name of ["mute", "ended", "web"]) await at.delete(name);
  assert.deepEqual(at.leaks(), []);
});

const ORDERS = ["start", "stop", "restart", "patch", "delete"] as const;

async function give(order: (typeof ORDERS)[number], name: string): Promise<number> {
  const path = order === "patch" ? `vms/${name}/config` : order === "delete" ? `vms/${name}` : `vms/${name}/${order}`;
  const method = order === "patch" ? "PATCH" : order === "delete" ? "DELETE" : "POST";
  const response = await fetch(`http://127.0.0.1:7777/api/v1/${path}`, {
    method,
    headers: { "content-type": "application/json" },
    ...(order === "patch" ? { body: JSON.stringify({ env: { A: "1" } }) } : {}),
    signal: AbortSignal.timeout(120_000),
  });
  await response.arrayBuffer();
  return response.status;
}

test("whichever two orders meet, on a VM that has just been asked for: each is answered, one process at most is left, and then nothing", async () => {
  const pairs = ORDERS.flatMap((first) => ORDERS.map((second) => [first, second] as const));
  await inParallel(5, pairs, async ([first, second]) => {
    const name = `${first}-${second}`;
    await at.create(name);
    const answers = await Promise.all([give(first, name), give(second, name)]);
    for (const status of answers) assert.ok([200, 204, 404, 409].includes(status), `${name}: ${answers.join(", ")}`);
  });
  const expected = pairs.filter((pair) => !pair.includes("delete")).length;
  await at.until(
    (vms) => vms.length === expected && vms.every(({ status }) => status === "running" || status === "stopped"),
  );
  const vms = await at.list();
  const running = vms.filter(({ status }) => status === "running").map(({ pid }) => pid);
  assert.deepEqual(findProcesses(`volant:${at.installation}:`).sort(), running.sort());
  await inParallel(
    8,
    vms.map(({ name }) => name),
    (name) => at.delete(name),
  );
  assert.deepEqual(at.leaks(), []);
});
