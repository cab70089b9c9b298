import assert from "node:assert/strict";
import test from "node:test";
import { VolantError, type RestartPolicy } from "@volant/contract";
import { Bench, request, type Running } from "../testing/engine-bench.ts";

const SOON = { firstMs: 5, lastMs: 20, steadyMs: 60_000 };
/** Long enough that no test sees its end. */
const LATE = { firstMs: 600_000, lastMs: 600_000, steadyMs: 600_000 };
const LIMIT_MS = 20_000;

interface Housed {
  readonly bench: Bench;
  readonly running: Running;
  readonly id: number;
}

async function withVm(policy: RestartPolicy, times = SOON): Promise<Housed> {
  const bench = new Bench();
  bench.restartTimes = times;
  const running = await bench.open();
  const { id } = await running.vms.create({ ...request("web"), config: { restart: policy } });
  await bench.settle(running);
  return { bench, running, id };
}

function end({ bench, running }: Housed, cause: string): void {
  const { pid } = running.vms.get("web");
  assert.ok(pid !== undefined, "it has a process");
  bench.host.end(pid, cause);
}

function until({ running, id }: Housed, done: () => boolean, what: string): Promise<void> {
  return running.engine.until(id, done, LIMIT_MS, `${what}: ${JSON.stringify(running.vms.get("web"))}`);
}

async function close({ bench, running }: Housed): Promise<void> {
  assert.deepEqual(bench.failures, []);
  await running.engine.close();
  bench.store.close();
}

test("on-failure brings a VM back that crashed, with an event for the crash and one for the start, and leaves one down that powered off", async () => {
  const at = await withVm("on-failure");
  const { bench, running } = at;
  for (const restarts of [1, 2, 3]) {
    end(at, "host-signal");
    await until(at, () => running.vms.get("web").restarts === restarts, "it is not started again");
    await bench.settle(running);
    bench.assertAgreement();
    assert.equal(running.vms.get("web").status, "running");
  }
  const messages = running.events.filter(({ type }) => type === "VM_CRASHED" || type === "VM_UPDATED");
  const crash = messages.find(({ type }) => type === "VM_CRASHED")?.message ?? "";
  assert.match(crash, /^it ended: host-signal\nlast words\nit is started again at 20\d\d-/);
  const again = messages.filter(({ message = "" }) => message.startsWith("started again"));
  assert.deepEqual(again[2]?.message, "started again (3): it ended: host-signal");
  end(at, "guest-shutdown");
  await until(at, () => running.vms.get("web").status === "stopped", "its end is not seen");
  await bench.settle(running);
  bench.assertAgreement();
  assert.equal(running.vms.get("web").next_restart_at, undefined);
  assert.equal((await running.vms.start("web")).restarts, 0, "a user's start begins to count anew");
  await close(at);
});

test("always brings a VM back that powered off or reset itself; no leaves it as it is", async () => {
  for (const cause of ["guest-shutdown", "guest-reset"]) {
    const at = await withVm("always");
    end(at, cause);
    await until(at, () => at.running.vms.get("web").restarts === 1, "it is not started again");
    await at.bench.settle(at.running);
    at.bench.assertAgreement();
    await close(at);
  }
  const at = await withVm("no");
  end(at, "host-signal");
  await until(at, () => at.running.vms.get("web").status === "crashed", "its end is not seen");
  await at.bench.settle(at.running);
  assert.equal(at.running.vms.get("web").next_restart_at, undefined);
  await close(at);
});

test("a start that the hypervisor refuses is a failure, too, and the next one follows", async () => {
  const at = await withVm("on-failure");
  const refusal = () => new VolantError("not_ready", "QEMU says no");
  at.bench.host.launchErrors.push(refusal(), refusal());
  await at.running.vms.restart("web");
  await until(at, () => at.running.vms.get("web").restarts === 2, "it is not tried again");
  await at.bench.settle(at.running);
  at.bench.assertAgreement();
  assert.ok(
    at.running.events.some(({ type, message }) => type === "VM_CRASHED" && message?.startsWith("QEMU says no")),
  );
  await close(at);
});

test("while a VM waits to be started again it says when; stop, start and delete are obeyed, and a policy of no calls it off", async () => {
  const at = await withVm("always", LATE);
  const { bench, running } = at;
  const waits = async (): Promise<void> => {
    end(at, "host-signal");
    const isScheduled = () => {
      const { status, next_restart_at: restartAt } = running.vms.get("web");
      return status === "crashed" && restartAt !== undefined;
    };
    await until(at, isScheduled, "no restart is scheduled");
  };
  await waits();
  assert.equal((await running.vms.stop("web")).status, "stopped");
  assert.equal(running.vms.get("web").next_restart_at, undefined);
  bench.assertAgreement();
  await running.vms.start("web");
  await bench.settle(running);
  await waits();
  await running.vms.start("web");
  await bench.settle(running);
  assert.deepEqual([running.vms.get("web").status, running.vms.get("web").restarts], ["running", 0]);
  await waits();
  assert.equal((await running.configs.patch("web", { restart: "no" })).pending, false, "it needs no start");
  await bench.settle(running);
  assert.equal(running.vms.get("web").next_restart_at, undefined);
  await running.configs.patch("web", { restart: "always" });
  await until(at, () => running.vms.get("web").next_restart_at !== undefined, "the policy is in force at once");
  await running.vms.delete("web");
  bench.assertAgreement();
  await close(at);
});

test("a restart that is due outlives volantd, is not made twice, and a clock that was set back does not put it off", async () => {
  const at = await withVm("always", LATE);
  const { bench, id } = at;
  end(at, "host-signal");
  await until(at, () => at.running.vms.get("web").next_restart_at !== undefined, "no restart is scheduled");
  const dueMs = bench.store.getVm(id)?.restartAtMs;
  await at.running.engine.close();
  const waiting = await bench.open();
  const again = { ...at, running: waiting };
  await until(again, () => waiting.engine.lane(id)?.restart !== undefined, "it is not waited for");
  assert.equal(bench.store.getVm(id)?.restartAtMs, dueMs);
  assert.equal(bench.store.getVm(id)?.failures, 1);
  await waiting.engine.close();
  // By this clock, ten minutes are still to go; by the times that are in force now, no more than 20 ms.
  bench.restartTimes = SOON;
  const running = await bench.open();
  await until({ ...at, running }, () => running.vms.get("web").restarts === 1, "it waits for the clock");
  await bench.settle(running);
  bench.assertAgreement();
  assert.equal(bench.store.getVm(id)?.generation, 2);
  await close({ ...at, running });
});

test("wherever volantd is killed between a crash and the end of its restart, the VM runs once, and was started again once", async () => {
  for (let effects = 0; effects < 14; effects += 1) {
    const bench = new Bench();
    bench.restartTimes = SOON;
    const first = await bench.open();
    const { id } = await first.vms.create({ ...request("web"), config: { restart: "on-failure" } });
    await bench.settle(first);
    await first.engine.close();
    const [pid = 0] = bench.host.processes.keys();
    const killed = await bench.open(effects);
    bench.host.end(pid, "host-signal");
    // The killed engine answers no one: it is given time to get as far as it does.
    const patience = new Promise<void>((resolve) => setTimeout(resolve, 60));
    const done = killed.engine.until(id, () => bench.store.getVm(id)?.runningGeneration === 2, LIMIT_MS, "no restart");
    await Promise.race([patience, done.catch(() => {})]);
    killed.life.end();
    void killed.engine.close();
    const running = await bench.open();
    await bench.settle(running);
    bench.assertAgreement();
    const { generation, restarts } = bench.store.getVm(id) ?? {};
    assert.deepEqual({ effects, generation, restarts }, { effects, generation: 2, restarts: 1 });
    await running.engine.close();
    bench.store.close();
  }
});

test("what an agent says when it can't serve this host is shown in place of its silence", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { id } = await running.vms.create(request("web"));
  const at = { bench, running, id };
  await bench.settle(running);
  const refusal = "the guest's agent refused the link: it speaks protocol 1";
  bench.host.guestNews.emit("refused", refusal);
  bench.host.guestNews.emit("silent");
  await until(at, () => running.vms.get("web").reason === refusal, "the refusal is not shown");
  assert.deepEqual([running.vms.get("web").status, running.vms.get("web").agent.responding], ["running", false]);
  bench.host.guestNews.emit("answering");
  await until(at, () => running.vms.get("web").reason === undefined, "the answer is not seen");
  await close(at);
});

test("a guest that stops answering is shown at once; with a policy it is ended after the limit and started again, without one it is left alone", async () => {
  for (const policy of ["no", "always"] as const) {
    const bench = new Bench();
    bench.restartTimes = SOON;
    const running = await bench.open(undefined, { hangTimeoutMs: 2000 });
    const { id } = await running.vms.create({ ...request("web"), config: { restart: policy } });
    const at = { bench, running, id };
    await bench.settle(running);
    bench.host.guestNews.emit("silent");
    const shown = () => running.vms.get("web").reason === "the guest's agent does not answer";
    await until(at, shown, "the silence is not shown");
    assert.deepEqual([running.vms.get("web").status, running.vms.get("web").agent.responding], ["running", false]);
    const told = running.events.at(-1);
    assert.deepEqual([told?.type, told?.message], ["VM_UPDATED", "the guest's agent does not answer\nlast words"]);
    if (policy === "no") {
      bench.host.guestNews.emit("answering");
      await until(at, () => running.vms.get("web").reason === undefined, "the answer is not seen");
      assert.equal(running.vms.get("web").agent.responding, true);
    } else {
      await until(at, () => running.vms.get("web").restarts === 1, "it is not started again");
      const crash = running.events.find(({ type }) => type === "VM_CRASHED")?.message ?? "";
      assert.match(crash, /^the guest's agent has not answered for 2 s\nlast words\n/);
      await bench.settle(running);
    }
    bench.assertAgreement();
    await close(at);
  }
});

test("a paused VM says that it is, and is not taken for one that hangs", async () => {
  const bench = new Bench();
  bench.restartTimes = SOON;
  const running = await bench.open(undefined, { hangTimeoutMs: 500 });
  const { id } = await running.vms.create({ ...request("web"), config: { restart: "always" } });
  const at = { bench, running, id };
  await bench.settle(running);
  bench.host.paused.add(id);
  bench.host.guestNews.emit("silent");
  await until(at, () => running.vms.get("web").reason === "it is paused", "the pause is not shown");
  const begunMs = performance.now();
  await until(at, () => performance.now() - begunMs > 1500, "time does not pass");
  assert.deepEqual([running.vms.get("web").status, bench.store.getVm(id)?.generation], ["running", 1]);
  bench.host.paused.delete(id);
  await until(at, () => running.vms.get("web").restarts === 1, "one that does not go on hangs");
  await close(at);
});

test("a VM that has been well for a while starts from the shortest wait again", async () => {
  const at = await withVm("always", { firstMs: 5, lastMs: 20, steadyMs: 30 });
  end(at, "host-signal");
  await until(at, () => at.running.vms.get("web").restarts === 1, "it is not started again");
  await until(at, () => at.bench.store.getVm(at.id)?.failures === 0, "its failure is not forgotten");
  assert.equal(at.running.vms.get("web").restarts, 1, "the count that users see stays");
  await close(at);
});

test("an unhealthy workload is told, and so is its recovery; it is no reason for a restart", async () => {
  const at = await withVm("always");
  const { bench, running } = at;
  bench.host.health = { state: "unhealthy", reason: "it said 500" };
  bench.host.guestNews.emit("network");
  await until(at, () => running.vms.get("web").reason === "the workload is unhealthy: it said 500", "it is not told");
  assert.equal(running.vms.get("web").status, "running");
  assert.deepEqual(
    [running.events.at(-1)?.type, running.events.at(-1)?.reason],
    ["VM_UPDATED", "the workload is unhealthy: it said 500"],
  );
  bench.host.health = { state: "healthy" };
  bench.host.guestNews.emit("network");
  await until(at, () => running.vms.get("web").reason === undefined, "the recovery is not told");
  assert.equal(running.vms.get("web").restarts, 0);
  await close(at);
});
