import assert from "node:assert/strict";
import test from "node:test";
import type { VmEvent } from "@volant/contract";
import { EventHub } from "./event-hub.ts";
import type { NumberedEvent } from "./use-cases.ts";

const event = (name: string, type: VmEvent["type"] = "VM_UPDATED"): VmEvent => ({
  type,
  name,
  timestamp: "2026-01-01T00:00:00.000Z",
});

async function take(events: AsyncIterable<NumberedEvent>, count: number): Promise<NumberedEvent[]> {
  const taken: NumberedEvent[] = [];
  for await (const next of events) if (taken.push(next) === count) break;
  return taken;
}

test("a reader gets what it missed after an id, then what comes, in order and once", async () => {
  const hub = new EventHub(100);
  for (const name of ["a", "b", "c"]) hub.publish(event(name));
  hub.publish(event("d", "VM_LOG"));
  const reading = take(hub.subscribe({ afterId: 101, signal: new AbortController().signal }), 4);
  hub.publish(event("e"));
  assert.deepEqual(
    (await reading).map(({ id, event: { name } }) => [id, name]),
    [
      [102, "b"],
      [103, "c"],
      [104, "d"],
      [105, "e"],
    ],
  );
});

test("events between the subscription and the first look at it are not lost", async () => {
  const hub = new EventHub(0);
  const events = hub.subscribe({ signal: new AbortController().signal });
  hub.publish(event("a"));
  assert.equal((await take(events, 1))[0]?.event.name, "a");
});

test("a reader that does not read is cut off with an error, and holds no more than its backlog", async () => {
  const hub = new EventHub(0, 10);
  const events = hub.subscribe({ signal: new AbortController().signal });
  const other = hub.subscribe({ signal: new AbortController().signal });
  for (let count = 0; count < 11; count += 1) hub.publish(event(`${count}`));
  await assert.rejects(take(events, 20), { code: "rate_limited" });
  await assert.rejects(take(other, 20), { code: "rate_limited" });
});

test("a chatty workload does not push changes out of what is remembered", async () => {
  const hub = new EventHub(0);
  hub.publish(event("change"));
  for (let count = 0; count < 5000; count += 1) hub.publish(event("log", "VM_LOG"));
  const [first] = await take(hub.subscribe({ afterId: 0, signal: new AbortController().signal }), 1);
  assert.equal(first?.event.name, "change");
});

test("a stream ends when it is aborted, also while it waits", async () => {
  const hub = new EventHub(0);
  const controller = new AbortController();
  const reading = take(hub.subscribe({ signal: controller.signal }), 1);
  setImmediate(() => controller.abort());
  assert.deepEqual(await reading, []);
});
