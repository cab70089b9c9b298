import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { parseSubnet } from "../model/address.ts";
import type { PublishedPort } from "../model/published-port.ts";
import { Bench, request } from "../testing/engine-bench.ts";
import { MemoryRuntime } from "../testing/memory-host.ts";
import type { Lane } from "./lane.ts";
import type { PortState } from "./port-keeper.ts";
import { ShownVms } from "./shown-vms.ts";
import type { VmRecord } from "../store/store.ts";
import { vmView, type ViewContext } from "./vm-view.ts";

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

/** Everything besides the record that the view of a VM is made from; each part may be another from one list to the next. */
interface Inputs {
  readonly dropped: number | undefined;
  readonly ports: readonly PortState[];
  readonly lane: Lane | undefined;
}

const maybe = <Value>(values: fc.Arbitrary<Value>) => fc.option(values, { nil: undefined, freq: 2 });
// Few values, so that parts are often the same as before beside others that are not.
const state = fc.constantFrom({ listening: true }, { listening: false }, { listening: false, reason: "taken" });
const guest = fc.record({
  generation: fc.constant(1),
  attached: fc.boolean(),
  configured: fc.boolean(),
  workload: maybe(fc.constantFrom("starting", "running", "exited")),
  health: maybe(fc.constantFrom("healthy", "unhealthy")),
  trouble: maybe(fc.constantFrom("the workload ended")),
  silentSinceMs: maybe(fc.nat({ max: 2 })),
});
const lease = fc.record({
  phase: fc.constantFrom("bound", "requesting"),
  address: maybe(fc.constantFrom(0x0a000009, 0x0a00000a)),
  prefixLength: maybe(fc.constantFrom(24)),
  nameservers: fc.constantFrom([], [0x0a000001]),
  expiresAt: maybe(fc.constantFrom(new Date(0))),
});
const session = fc.record({
  view: guest.map((view) => () => view),
  agent: maybe(fc.constantFrom({ version: "1", kernel: "6" }, { version: "2", kernel: "6" })),
  transport: fc.constantFrom({ name: "vsock" }, { name: "virtio-serial" }, { name: "virtio-serial", reason: "old" }),
});
const lane = fc.record({
  process: maybe(fc.record({ pid: fc.nat({ max: 2 }) })),
  lease: maybe(lease),
  session: maybe(session),
});
const inputs = fc.record({
  dropped: maybe(fc.nat({ max: 2 })),
  ports: fc.array(state, { minLength: 2, maxLength: 2 }),
  lane: maybe(lane),
}) as unknown as fc.Arbitrary<Inputs>;

const ports: readonly PublishedPort[] = [8080, 8081].map((hostPort) => ({
  name: undefined,
  guestPort: 80,
  address: "127.0.0.1",
  hostPort,
}));

async function viewed(): Promise<{ record: VmRecord; context: ViewContext; put: (inputs: Inputs) => void }> {
  const bench = new Bench();
  const running = await bench.open();
  const { id } = await running.vms.create(request("web"));
  const found = bench.store.getVm(id);
  assert.ok(found !== undefined);
  let now: Inputs | undefined;
  const context: ViewContext = {
    runtime: new MemoryRuntime(bench.host, running.life),
    network: { dropped: () => now?.dropped },
    bridge: "vbr0",
    pool: { subnet: parseSubnet("10.0.0.0/24"), gateway: 0x0a000001 },
    portState: (port) => now?.ports[ports.indexOf(port)] ?? { listening: false },
  };
  await running.engine.close();
  bench.store.close();
  return { record: { ...found, ports }, context, put: (next) => (now = next) };
}

test("whatever changes in what a VM is made from, in any order, what is shown is what a fresh view shows", async () => {
  const { record, context, put } = await viewed();
  fc.assert(
    fc.property(fc.array(inputs, { minLength: 2, maxLength: 10 }), (steps) => {
      const shown = new ShownVms(context);
      for (const step of steps) {
        put(step);
        assert.deepEqual(shown.show(record, step.lane), vmView(record, step.lane, context));
      }
    }),
    { numRuns: 1000 },
  );
});

test("a view is made from nothing but the parts that are compared", async () => {
  const { record, context, put } = await viewed();
  const compared = ["process.pid", "lease", "session.view", "session.agent", "session.transport"];
  // Of a view these are compared; the others are none that a user sees.
  const guestParts = ["attached", "silentSinceMs", "workload", "health"];
  const read = new Set<string>();
  /** Notes which of its properties are read; nested ones of a process and a session by their whole path. */
  const noting = <Value extends object>(value: Value, path: string): Value =>
    new Proxy(value, {
      get(target, key) {
        const part = Reflect.get(target, key) as unknown;
        const name = `${path}${String(key)}`;
        if (["process", "session"].includes(name))
          return part === undefined ? part : noting(part as object, `${name}.`);
        read.add(name);
        if (name === "session.view") return () => noting((part as () => object)(), "view.");
        return part;
      },
    });
  fc.assert(
    fc.property(inputs, (step) => {
      put(step);
      vmView(record, step.lane && noting(step.lane, ""), context);
    }),
    { numRuns: 1000 },
  );
  assert.deepEqual([...read].toSorted(), [...compared, ...guestParts.map((part) => `view.${part}`)].toSorted());
});
