import assert from "node:assert/strict";
import test from "node:test";
import { parseSubnet } from "../model/address.ts";
import type { PublishedPort } from "../model/published-port.ts";
import { Bench, request } from "../testing/engine-bench.ts";
import { MemoryRuntime } from "../testing/memory-host.ts";
import type { Lane } from "./lane.ts";
import type { PortState } from "./port-keeper.ts";
import { ShownVms } from "./shown-vms.ts";
import { vmView } from "./vm-view.ts";

test("a VM of which nothing has changed is shown as the same object, and anew when anything has that is shown", async () => {
  const bench = new Bench();
  const running = await bench.open();
  const { id } = await running.vms.create(request("web"));
  await bench.settle(running);
  const lane = running.engine.lane(id);
  assert.ok(lane?.session !== undefined && lane.process !== undefined);

  let dropped: number | undefined;
  const states = new Map<PublishedPort, PortState>();
  const context = {
    runtime: new MemoryRuntime(bench.host, running.life),
    network: { dropped: () => dropped },
    bridge: "vbr0",
    pool: { subnet: parseSubnet("10.0.0.0/24"), gateway: 0x0a000001 },
    portState: (port: PublishedPort) => states.get(port) ?? { listening: false },
  };
  const port: PublishedPort = { name: undefined, guestPort: 80, address: "127.0.0.1", hostPort: 8080 };
  const found = bench.store.getVm(id);
  assert.ok(found !== undefined);
  const record = { ...found, ports: [port] };
  const shown = new ShownVms(context);
  const now: { -readonly [Key in keyof Lane]?: Lane[Key] } = {};
  const view = lane.session.view();
  const see = (guest: object): void => {
    now.session = { view: () => ({ ...view, ...guest }), agent: undefined, transport: { name: "vsock" } } as never;
  };
  const changes: readonly (() => void)[] = [
    () => (dropped = 7),
    () => states.set(port, { listening: true }),
    () => states.set(port, { listening: false, reason: "taken" }),
    () => (now.process = lane.process),
    () => see({}),
    () => see({ attached: !view.attached }),
    () => see({ silentSinceMs: 1 }),
    () => see({ workload: "exited" }),
    () => see({ health: "unhealthy" }),
    () => (now.session = { ...now.session, view: () => view, agent: { version: "9", kernel: "k" } } as never),
    () =>
      (now.session = {
        ...now.session,
        view: () => view,
        transport: { name: "virtio-serial", reason: "old" },
      } as never),
    () => (now.lease = { address: 0x0a000009, prefixLength: 24, phase: "bound", nameservers: [] } as never),
  ];
  let before = shown.show(record, now as Lane);
  for (const [index, change] of changes.entries()) {
    assert.equal(shown.show(record, now as Lane), before, `nothing has changed before change ${index}`);
    change();
    const after = shown.show(record, now as Lane);
    assert.deepEqual(after, vmView(record, now as Lane, context), `after change ${index}`);
    before = after;
  }
  const renamed = { ...record, status: "stopped" as const };
  assert.equal(shown.show(renamed, now as Lane).status, "stopped");

  const [first] = running.vms.list({}).vms;
  assert.equal(running.vms.list({}).vms[0], first, "a whole list, too");
  await running.vms.stop("web");
  assert.equal(running.vms.list({}).vms[0]?.status, "stopped");
  await running.engine.close();
  bench.store.close();
});
