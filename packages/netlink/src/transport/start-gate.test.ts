import assert from "node:assert/strict";
import test from "node:test";
import { Gate } from "./start-gate.ts";

const limit = { timeout: 30_000 };

test(
  "tasks of one kind run beside each other and never beside the other kind's, in the order in which they came",
  limit,
  async () => {
    const gate = new Gate<"a" | "b">();
    const log: string[] = [];
    const inside = { a: 0, b: 0 };
    const task = (kind: "a" | "b", name: string) =>
      gate.run(kind, async () => {
        inside[kind] += 1;
        log.push(name);
        assert.ok(inside.a === 0 || inside.b === 0, log.join());
        for (let turn = 0; turn < 3; turn += 1) await new Promise(setImmediate);
        inside[kind] -= 1;
        return name;
      });
    const all = [task("a", "a1"), task("a", "a2"), task("b", "b1"), task("a", "a3"), task("b", "b2")];
    assert.deepEqual(inside, { a: 0, b: 0 });
    await new Promise(setImmediate);
    assert.equal(inside.a, 2);
    assert.deepEqual(await Promise.all(all), ["a1", "a2", "b1", "a3", "b2"]);
    assert.deepEqual(log, ["a1", "a2", "b1", "a3", "b2"]);
  },
);

test("a task that fails lets the next one in", limit, async () => {
  const gate = new Gate<"a" | "b">();
  await assert.rejects(
    gate.run("a", () => Promise.reject(new Error("no"))),
    /no/,
  );
  assert.equal(await gate.run("b", async () => "yes"), "yes");
});
