import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { VolantError, type VmEvent } from "@volant/contract";
import fc from "fast-check";
import { Bench, request, type Running } from "../testing/engine-bench.ts";

const ofType = (events: readonly VmEvent[]) => events.filter(({ type }) => type !== "VM_LOG").map(({ type }) => type);

test("a VM goes from pending to running, and each step of its way is told", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const created = await running.vms.create(request("web"));
  assert.equal(created.status, "pending");
  assert.equal(created.ip_address, "10.0.0.2");
  await bench.settle(running);
  bench.assertAgreement();
  const vm = running.vms.get("web");
  assert.equal(vm.status, "running");
  assert.equal(vm.agent.health, "healthy");
  assert.equal(vm.pid, [...bench.host.processes.keys()][0]);
  const types = ofType(running.events);
  assert.equal(types[0], "VM_CREATED");
  assert.equal(types.at(-1), "VM_RUNNING");
  assert.ok(running.events.some(({ type, line }) => type === "VM_LOG" && line === "hello"));
  await running.vms.delete("web");
  assert.equal(ofType(running.events).at(-1), "VM_DELETED");
  bench.assertAgreement();
  await running.engine.close();
  bench.store.close();
});

test("start of a running VM is refused, stop of a stopped one is not, and a started one has a new generation", async () => {
  const bench = new Bench();
  const running = await bench.open();
  await running.vms.create(request("web"));
  await bench.settle(running);
  await assert.rejects(running.vms.start("web"), { code: "wrong_state" });
  assert.equal((await running.vms.stop("web")).status, "stopped");
  bench.assertAgreement();
  assert.equal((await running.vms.stop("web")).status, "stopped");
  assert.equal((await running.vms.start("web")).status, "pending");
  await bench.settle(running);
  assert.equal((await running.vms.restart("web")).status, "pending");
  await bench.settle(running);
  bench.assertAgreement();
  assert.equal([...bench.host.processes.values()][0]?.generation, 3);
  await assert.rejects(running.vms.stop("nope"), { code: "not_found" });
  await running.engine.close();
  bench.store.close();
});

test("a hypervisor that dies is a crash with a reason and the console's last words, is cleaned up, and stays down until it is started", async () => {
  const bench = new Bench();
  const running = await bench.open();
  await running.vms.create(request("web"));
  await bench.settle(running);
  const { id } = running.vms.get("web");
  bench.host.end([...bench.host.processes.keys()][0] ?? 0, "host-signal");
  await running.engine.until(id, () => running.vms.get("web").status === "crashed", 5000, "no crash is seen");
  await bench.settle(running);
  bench.assertAgreement();
  assert.equal(running.vms.get("web").reason, "it ended: host-signal");
  assert.match(running.events.find(({ type }) => type === "VM_CRASHED")?.message ?? "", /host-signal\nlast words/);
  await running.vms.start("web");
  await bench.settle(running);
  bench.assertAgreement();
  await running.engine.close();
  bench.store.close();
});

test("once a hypervisor has ended its guest's session tries no more to reach it, before the planner has it detached", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { id } = await running.vms.create(request("web"));
  await bench.settle(running);
  const lane = running.engine.lane(id);
  const session = lane?.session;
  assert.equal(session?.view().attached, true);
  bench.host.end([...bench.host.processes.keys()][0] ?? 0, "host-signal");
  await new Promise(setImmediate);
  assert.equal(lane?.session, session, "no pass has been made yet");
  assert.equal(session.view().attached, false);
  await bench.settle(running);
  assert.equal(lane.session, undefined);
  await running.engine.close();
  bench.store.close();
});

test("a VM in mode dhcp runs once it has a lease, shows it, and tells when it changes; an address of another is no lease", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { vms, engine, events } = running;
  const say = (address: string) => {
    const lease = { phase: "bound", server: "10.7.0.1", nameservers: ["10.7.0.1"], expiresAt: new Date(0) } as const;
    bench.host.guestNetwork = { applied: true, mode: "dhcp", address, prefixLength: 24, gateway: "10.7.0.1", lease };
    bench.host.guestNews.emit("network");
  };
  await vms.create(request("neighbour"));
  await bench.settle(running);
  const taken = vms.get("neighbour").ip_address;
  const network = { mode: "dhcp", bridge: "br-lan" };
  bench.host.otherBridges.set("br-lan", "up");
  const { id } = await vms.create({ ...request("web"), config: { network } });
  const reaches = (done: () => boolean, what: string) => engine.until(id, done, 5000, what);
  await reaches(() => vms.get("web").reason === "waiting_for_lease", "it does not wait");
  assert.deepEqual([vms.get("web").status, vms.get("web").ip_address], ["starting", ""]);
  assert.equal([...bench.host.taps.values()].find((tap) => tap.vmId === id)?.bridge, "br-lan");
  assert.equal(bench.store.getVm(id)?.address, undefined);
  for (const address of ["10.0.0.1", taken]) {
    say(address);
    const refused = () => vms.get("web").network.lease?.reason?.includes(address) === true;
    await reaches(refused, `${address} is taken for a lease`);
    assert.equal(vms.get("web").status, "starting");
  }
  say("10.7.0.5");
  await reaches(() => vms.get("web").status === "running", "it does not run");
  const { network: shown, ip_address: address } = vms.get("web");
  assert.deepEqual([address, shown.addresses, shown.bridge], ["10.7.0.5", ["10.7.0.5/24"], "br-lan"]);
  assert.deepEqual(shown.lease, {
    state: "bound",
    gateway: "10.7.0.1",
    server: "10.7.0.1",
    nameservers: ["10.7.0.1"],
    expires_at: "1970-01-01T00:00:00.000Z",
  });
  say("10.7.0.6");
  await reaches(() => vms.get("web").ip_address === "10.7.0.6", "the change is not seen");
  bench.host.guestNetwork = { applied: false, lease: { phase: "waiting_for_lease", nameservers: [] } };
  bench.host.guestNews.emit("network");
  await reaches(() => vms.get("web").reason === "waiting_for_lease", "the loss is not seen");
  assert.equal(vms.get("web").status, "running");
  const told = events.filter(({ type, name }) => type !== "VM_LOG" && name === "web").map((event) => event.ip_address);
  const addresses = told.filter((value, index) => index === 0 || value !== told[index - 1]);
  assert.deepEqual(addresses, [undefined, "10.7.0.5", "10.7.0.6", undefined]);
  assert.equal(bench.host.neighbours.size, 1, "the host writes no neighbour entry by a guest's word");
  await running.engine.close();
  bench.store.close();
});

test("an address that no DHCP server was seen to give is no lease, unless the operator lets the guest be anybody", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { vms, engine } = running;
  bench.host.leasesAreTrue = false;
  const lease = { phase: "bound", nameservers: [] } as const;
  bench.host.guestNetwork = { applied: true, mode: "dhcp", address: "10.7.0.5", prefixLength: 24, lease };
  const network = { mode: "dhcp" };
  const held = await vms.create({ ...request("held"), config: { network } });
  const reason = () => vms.get("held").network.lease?.reason ?? "";
  await engine.until(held.id, () => reason().includes("no DHCP server"), 5000, "its word is taken");
  assert.deepEqual([vms.get("held").ip_address, vms.get("held").policy], ["", { anti_spoof: true }]);
  const config = { network, policy: { anti_spoof: false } };
  const free = await vms.create({ ...request("free"), config });
  await engine.until(free.id, () => vms.get("free").ip_address === "10.7.0.5", 5000, "its word is not taken");
  assert.deepEqual(bench.host.policies.get(free.id)?.antiSpoof, false);
  await running.engine.close();
  bench.store.close();
});

test("a start that takes too long says what it waits for, in its reason and an event, and goes on", async () => {
  const bench = new Bench();
  const running = await bench.open(undefined, { startTimeoutMs: 1 });
  const { vms, engine, events } = running;
  const silent = { phase: "waiting_for_lease", nameservers: [], reason: "no DHCP server has answered" } as const;
  bench.host.guestNetwork = { applied: false, lease: silent };
  bench.host.otherBridges.set("br-lan", "up");
  const { id } = await vms.create({ ...request("web"), config: { network: { mode: "dhcp", bridge: "br-lan" } } });
  const sentence = "no lease after 0.001 s on bridge br-lan: no DHCP server has answered; still trying";
  await engine.until(id, () => vms.get("web").reason === sentence, 5000, "it does not say that it is late");
  assert.equal(vms.get("web").status, "starting");
  assert.ok(
    events.some(({ type, reason, status }) => type === "VM_UPDATED" && reason === sentence && status === "starting"),
  );
  const lease = { phase: "bound", nameservers: [] } as const;
  bench.host.guestNetwork = { applied: true, mode: "dhcp", address: "10.7.0.5", prefixLength: 24, lease };
  bench.host.guestNews.emit("network");
  await bench.settle(running);
  assert.deepEqual([vms.get("web").status, vms.get("web").reason], ["running", undefined]);
  await engine.close();
  bench.store.close();
});

test("a guest that powers itself off is stopped, not crashed", async () => {
  const bench = new Bench();
  const running = await bench.open();
  await running.vms.create(request("web"));
  await bench.settle(running);
  const { id } = running.vms.get("web");
  bench.host.end([...bench.host.processes.keys()][0] ?? 0, "guest-shutdown");
  await running.engine.until(id, () => running.vms.get("web").status === "stopped", 5000, "no stop is seen");
  await running.engine.close();
  bench.store.close();
});

test("the next engine adopts running VMs without touching them, and removes what has our mark and no row", async () => {
  const bench = new Bench();
  const first = await bench.open();
  await first.vms.create(request("web"));
  await bench.settle(first);
  const before = [...bench.host.processes.values()];
  await first.engine.close();
  bench.host.processes.set(7, { vmId: 99, generation: 1, pid: 7, startTicks: 1n });
  bench.host.folders.add(98);
  const tap = { index: 5, name: "vttap-old", up: true, bridge: "vbr0", usable: true, owner: 1 };
  bench.host.taps.set(5, { ...tap, vmId: 97 });
  bench.host.neighbours.set(77, "02:ab:cd:00:00:60");
  bench.host.neighbours.set(78, "02:ff:ff:00:00:60");
  const second = await bench.open();
  assert.equal(second.vms.get("web").pid, before[0]?.pid, "known as soon as the engine has started");
  assert.equal(second.vms.get("web").status, "running");
  const { id } = second.vms.get("web");
  await second.engine.until(id, () => second.vms.get("web").agent.health === "healthy", 5000, "the link is not back");
  const orphans = () =>
    bench.host.processes.has(7) ||
    bench.host.folders.has(98) ||
    bench.host.taps.has(5) ||
    bench.host.neighbours.has(77);
  const deadline = performance.now() + 5000;
  while (orphans() && performance.now() < deadline) await new Promise(setImmediate);
  await bench.settle(second);
  assert.deepEqual([...bench.host.processes.values()], before);
  assert.equal(bench.host.neighbours.get(78), "02:ff:ff:00:00:60", "another installation's is not ours to remove");
  bench.host.neighbours.delete(78);
  bench.assertAgreement();
  await second.engine.close();
  const told = readFileSync(join(bench.logDirectory, "web.log"), "utf8");
  assert.equal(told, "2026-01-01T00:00:00.000Z stdout hello\n", "no line is told twice");
  bench.store.close();
});

test("what runs is shown as running before the loop begins, and whoever orders something then is served", async () => {
  const bench = new Bench();
  const first = await bench.open();
  await first.vms.create(request("web"));
  await bench.settle(first);
  const { pid } = first.vms.get("web");
  await first.engine.close();
  const second = await bench.open(undefined, { adoptOnly: true });
  const shown = second.vms.get("web");
  assert.deepEqual([shown.status, shown.pid, shown.agent.attached], ["running", pid, false]);
  await second.vms.create(request("later"));
  await second.vms.delete("web");
  assert.equal(bench.host.processes.has(pid ?? 0), false);
  second.engine.begin();
  await bench.settle(second);
  assert.equal(second.vms.get("later").agent.attached, true);
  bench.assertAgreement();
  await second.engine.close();
  bench.store.close();
});

test("what ended while no volantd ran is told as ended before anybody is answered, and nothing is waited for where all are there", async () => {
  const bench = new Bench();
  const first = await bench.open();
  await first.vms.create(request("lost"));
  await first.vms.create(request("here"));
  await bench.settle(first);
  const { pid } = first.vms.get("lost");
  await first.engine.close();
  bench.host.end(pid ?? 0, "host-signal");
  const second = await bench.open(undefined, { adoptOnly: true });
  assert.equal(second.vms.get("lost").status, "running", "as it is written down");
  await second.engine.endsSeen(5000);
  assert.deepEqual([second.vms.get("lost").status, second.vms.get("here").status], ["crashed", "running"]);
  await second.vms.start("lost");
  await bench.settle(second);
  await second.engine.close();
  const third = await bench.open(undefined, { adoptOnly: true });
  await third.engine.endsSeen(5000);
  assert.deepEqual(
    third.vms.list({}).vms.map(({ status, agent }) => [status, agent.attached]),
    [
      ["running", false],
      ["running", false],
    ],
    "the loop has not begun",
  );
  third.engine.begin();
  await bench.settle(third);
  bench.assertAgreement();
  await third.engine.close();
  bench.store.close();
});

test("a bridge that is missing is said in the VM's reason, and the VM starts when the bridge is there", async () => {
  const bench = new Bench();
  const running = await bench.open();
  bench.host.bridge = "down";
  const { id } = await running.vms.create(request("web"));
  await bench.settle(running);
  bench.assertAgreement();
  await running.vms.stop("web");
  bench.host.bridge = "missing";
  await running.vms.start("web");
  const blocked = () => /vbr0 does not exist: run volar setup/.test(running.vms.get("web").reason ?? "");
  await running.engine.until(id, blocked, 5000, "nothing is said");
  assert.equal(running.vms.get("web").status, "pending");
  bench.host.bridge = "up";
  running.engine.wake(id);
  await bench.settle(running);
  bench.assertAgreement();
  await running.engine.close();
  bench.store.close();
});

test("a bridge that set-up recorded is put back before its VMs are looked at, as soon as no set-up is in the way", async () => {
  const bench = new Bench();
  bench.host.recorded = true;
  const running = await bench.open();
  const { id } = await running.vms.create(request("web"));
  await bench.settle(running);
  bench.host.restoreErrors.push(
    new VolantError("in_use", "another set-up or undo is at work"),
    new VolantError("in_use", "the subnet overlaps a route"),
  );
  bench.host.bridge = "missing";
  bench.host.addressed = false;
  bench.host.neighbours.clear();
  for (const [index, tap] of bench.host.taps) bench.host.taps.set(index, { ...tap, bridge: undefined });
  running.engine.wake(id);
  const back = () => bench.host.bridge === "up" && bench.host.neighbours.size === 1;
  await running.engine.until(id, back, 10_000, "the bridge does not come back");
  await bench.settle(running);
  assert.equal(bench.host.addressed, true);
  assert.deepEqual(bench.host.restoreErrors, []);
  bench.assertAgreement();
  await running.engine.close();
  bench.store.close();
});

test("a foreign link of a tap's name is left alone, and named", async () => {
  const bench = new Bench();
  const running = await bench.open();
  bench.host.foreignNames.add("vttap-web");
  const { id } = await running.vms.create(request("web"));
  await running.engine.until(id, () => /vttap-web/.test(running.vms.get("web").reason ?? ""), 5000, "nothing is said");
  assert.equal(bench.host.taps.size, 0);
  await running.vms.delete("web");
  assert.ok(bench.host.foreignNames.has("vttap-web"));
  await running.engine.close();
  bench.store.close();
});

const names = ["a", "a-1", "a1", "B"];
const command = fc.record({
  what: fc.constantFrom(
    "create",
    "create",
    "delete",
    "start",
    "stop",
    "restart",
    "crash",
    "power off",
    "vsock",
    "bridged",
    "no",
    "on-failure",
    "always",
  ),
  name: fc.constantFrom(...names),
});
const chapter = fc.record({
  /** Commands of users who don't wait for each other. */
  commands: fc.array(command, { minLength: 1, maxLength: 6 }),
  /** How the engine's life ends: in order, killed after so many effects, or not in this chapter. */
  end: fc.oneof(fc.constant("close" as const), fc.constant("stay" as const), fc.integer({ min: 0, max: 12 })),
});

async function obey(
  { vms, configs }: Running,
  bench: Bench,
  { what, name }: { what: string; name: string },
): Promise<void> {
  try {
    if (what === "create") await vms.create(request(name));
    else if (what === "delete") await vms.delete(name);
    else if (what === "start") await vms.start(name);
    else if (what === "stop") await vms.stop(name);
    else if (what === "restart") await vms.restart(name);
    else if (what === "vsock" || what === "bridged") await configs.patch(name, { network: { mode: what } });
    else if (what === "no" || what === "on-failure" || what === "always") await configs.patch(name, { restart: what });
    else {
      const { pid } = vms.get(name);
      if (pid !== undefined) bench.host.end(pid, what === "crash" ? "host-signal" : "guest-shutdown");
    }
  } catch (error) {
    const expected = ["exists", "not_found", "wrong_state", "not_ready"];
    if (!(error instanceof VolantError) || !expected.includes(error.code)) throw error;
  }
}

test("whatever users order at once, whatever dies, and wherever volantd is killed: in the end the host holds what was asked for and nothing else", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(chapter, { minLength: 1, maxLength: 6 }), async (chapters) => {
      const bench = new Bench();
      bench.restartTimes = { firstMs: 1, lastMs: 4, steadyMs: 10 };
      let running = await bench.open();
      try {
        for (const { commands, end } of chapters) {
          if (typeof end === "number") {
            await running.engine.close();
            running = await bench.open(end);
            const orders = commands.map((order) => obey(running, bench, order));
            // The killed engine answers no one; its users see their connection break.
            const patience = new Promise((resolve) => setTimeout(resolve, 30));
            await Promise.race([Promise.allSettled(orders), patience]);
            running.life.end();
            // Never finishes, having died in the middle of its calls; but its users' time-outs end with it.
            void running.engine.close();
            running = await bench.open();
          } else {
            await Promise.all(commands.map((order) => obey(running, bench, order)));
            if (end === "close") {
              await running.engine.close();
              running = await bench.open();
            }
          }
        }
        await bench.settle(running);
        bench.assertAgreement();
        for (const name of names) await obey(running, bench, { what: "delete", name });
        bench.assertAgreement();
        assert.deepEqual(bench.store.vmIds(), []);
      } finally {
        await running.engine.close();
        bench.store.close();
      }
    }),
    { numRuns: 60 },
  );
});
