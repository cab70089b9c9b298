import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { portKey, type VmPort } from "../model/published-port.ts";
import { planPorts } from "./plan-ports.ts";

const anyPorts = fc.uniqueArray(
  fc.record<VmPort>({
    vmId: fc.integer({ min: 1, max: 3 }),
    guestPort: fc.integer({ min: 80, max: 81 }),
    address: fc.constantFrom("127.0.0.1", "::1"),
    hostPort: fc.integer({ min: 8080, max: 8083 }),
  }),
  { selector: portKey },
);

test("carrying the plan out gives what is desired, whatever was listened on; and then there is nothing to do", () => {
  fc.assert(
    fc.property(anyPorts, anyPorts, (desired, before) => {
      const plan = planPorts(desired, before);
      const open = new Map(before.map((port) => [portKey(port), port]));
      for (const port of plan.close) assert.ok(open.delete(portKey(port)));
      for (const port of plan.open) {
        assert.ok(!open.has(portKey(port)), "a port is opened twice");
        open.set(portKey(port), port);
      }
      const after = [...open.values()];
      const sorted = (ports: readonly VmPort[]) => ports.map((port) => JSON.stringify(Object.entries(port))).sort();
      assert.deepEqual(sorted(after), sorted(desired));
      assert.deepEqual(planPorts(desired, after), { close: [], open: [] });
    }),
  );
});

test("what stays is not touched: its connections go on", () => {
  const port = { vmId: 1, guestPort: 80, address: "127.0.0.1", hostPort: 8080 };
  const added = { ...port, hostPort: 8081 };
  assert.deepEqual(planPorts([port, added], [port]), { close: [], open: [added] });
  assert.deepEqual(planPorts([{ ...port, name: "web" }], [port]), { close: [], open: [] });
  assert.deepEqual(planPorts([{ ...port, vmId: 2 }], [port]).close, [port]);
});
