import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { restoreDatabase } from "@volant/host";
import type { VmEvent } from "@volant/contract";
import type { EventsKept } from "../store/events.ts";
import { SqliteStore } from "../store/sqlite-store.ts";
import { FIRST_EVENT_ID } from "../store/store.ts";
import { EventHub, type EventStore } from "./event-hub.ts";
import type { EventGap, NumberedEvent } from "./use-cases.ts";

const directory = mkdtempSync(join(tmpdir(), "event-hub-"));
after(() => rmSync(directory, { recursive: true, force: true }));
const signal = new AbortController().signal;
let files = 0;

function openStore(path = join(directory, `${files++}.db`), eventsKept?: EventsKept): SqliteStore {
  return SqliteStore.open({
    path,
    now: () => new Date("2026-01-01T00:00:00.000Z"),
    newInstallation: () => "abcdef01",
    ...(eventsKept === undefined ? {} : { eventsKept }),
  });
}

const event = (name: string, type: VmEvent["type"] = "VM_UPDATED", second = 0): VmEvent => ({
  type,
  name,
  timestamp: new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString(),
});

const LIMIT_MS = 30_000;

async function take(events: AsyncIterable<NumberedEvent | EventGap>, count: number) {
  const taken: (NumberedEvent | EventGap)[] = [];
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(
    () =>
      late.reject(
        new Error(`after ${LIMIT_MS} ms only ${taken.length} of ${count}: ${JSON.stringify(taken.slice(-5))}`),
      ),
    LIMIT_MS,
  );
  const reading = async () => {
    for await (const next of events) if (taken.push(next) === count) break;
    return taken;
  };
  return Promise.race([reading(), late.promise]).finally(() => clearTimeout(timer));
}

/** Whoever waits has taken what it was told. */
const turn = () => new Promise(setImmediate);

/** All that was published is told, and whoever waits has taken it. */
async function told(hub: EventHub): Promise<void> {
  await hub.told();
  await turn();
}

async function names(events: AsyncIterable<NumberedEvent | EventGap>, count: number): Promise<string[]> {
  return (await take(events, count)).map((item) => ("gap" in item ? "gap" : item.event.name));
}

test("a reader gets what it missed after an id, then what comes, in order and once; lines of logs among it", async () => {
  const hub = new EventHub(openStore());
  const first = FIRST_EVENT_ID;
  for (const name of ["a", "b", "c"]) hub.publish(event(name));
  hub.publish(event("d", "VM_LOG"));
  const reading = take(hub.subscribe({ afterId: first, signal }), 4);
  hub.publish(event("e"));
  assert.deepEqual(
    (await reading).map((item) => ("gap" in item ? "gap" : [item.id - first, item.event.name])),
    [
      [1, "b"],
      [2, "c"],
      [3, "d"],
      [4, "e"],
    ],
  );
});

test("events between the subscription and the first look at it are not lost, and those before it are not told", async () => {
  const hub = new EventHub(openStore());
  hub.publish(event("before"));
  const events = hub.subscribe({ signal });
  hub.publish(event("a"));
  assert.deepEqual(await names(events, 1), ["a"]);
});

test("a reader that does not read is cut off with an error, and holds no more than its backlog", async () => {
  const store = openStore();
  const hub = new EventHub(store, 10);
  const events = hub.subscribe({ signal });
  const other = hub.subscribe({ signal });
  for (let count = 0; count < 11; count += 1) hub.publish(event(`${count}`));
  await told(hub);
  await assert.rejects(take(events, 20), { code: "rate_limited" });
  await assert.rejects(take(other, 20), { code: "rate_limited" });
});

test("a reader that was cut off goes on from its position without a loss, at its own pace, however much it missed", async () => {
  const store = openStore();
  const hub = new EventHub(store, 10);
  const events = hub.subscribe({ signal });
  hub.publish(event("first"));
  const iterator = events[Symbol.asyncIterator]();
  await iterator.next();
  store.together(() => {
    for (let count = 0; count < 1000; count += 1) hub.publish(event(`${count}`));
  });
  await told(hub);
  await assert.rejects(iterator.next(), /cut off/);
  const again = hub.subscribe({ afterId: events.position, signal });
  const expected = Array.from({ length: 1000 }, (_none, index) => `${index}`);
  assert.deepEqual(await names(again, 1000), expected);
});

test("a chatty workload does not push events out of what is kept", async () => {
  const hub = new EventHub(openStore());
  hub.publish(event("change"));
  for (let count = 0; count < 5000; count += 1) hub.publish(event("log", "VM_LOG"));
  assert.deepEqual(await names(hub.subscribe({ afterId: 0, signal }), 1), ["change"]);
});

test("what is kept is replayed by the next volantd, and its ids are above all that were given out, also to lines of logs", async () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  const hub = new EventHub(store);
  const live = hub.subscribe({ signal });
  for (const [name, type] of [["a"], ["line", "VM_LOG"], ["b"], ["last line", "VM_LOG"]] as const) {
    hub.publish(event(name, type));
  }
  const heard = await take(live, 4);
  const ids = heard.map((item) => ("gap" in item ? 0 : item.id));
  store.close();

  const next = openStore(path);
  const later = new EventHub(next);
  const replay = later.subscribe({ afterId: ids[0], signal });
  later.publish(event("c", "VM_LOG"));
  const items = await take(replay, 2);
  assert.deepEqual(
    items.map((item) => ("gap" in item ? "gap" : item.event.name)),
    ["b", "c"],
  );
  const last = items.at(-1);
  assert.ok(last !== undefined && "id" in last && last.id > Math.max(...ids));
  next.close();
});

test("an event whose transaction was undone is neither kept nor told", async () => {
  const store = openStore();
  const hub = new EventHub(store);
  const events = hub.subscribe({ signal });
  assert.throws(
    () =>
      store.together(() => {
        hub.publish(event("undone"));
        throw new Error("the rest failed");
      }),
    /the rest failed/,
  );
  store.together(() => {
    hub.publish(event("done"));
    assert.throws(() =>
      store.together(() => {
        hub.publish(event("undone"));
        throw new Error("a part failed");
      }),
    );
    hub.publish(event("done, too"));
  });
  assert.deepEqual(await names(events, 2), ["done", "done, too"]);
  assert.deepEqual(
    hub.list({ limit: 10 }).map((item) => item.event.name),
    ["done, too", "done"],
  );
});

/** A store whose writes become durable when the test says so. */
class SlowDisk {
  readonly pending: PromiseWithResolvers<void>[] = [];
  readonly store: EventStore;

  constructor(store: SqliteStore) {
    this.store = {
      addEvent: (added) => store.addEvent(added),
      takeEventId: () => store.takeEventId(),
      events: (range) => store.events(range),
      eventMarks: () => store.eventMarks(),
      settled: () => {
        const next = Promise.withResolvers<void>();
        this.pending.push(next);
        return next.promise;
      },
    };
  }
}

test("an event is told when it is durable and not before, to readers that catch up as to those that listen; nothing overtakes it", async () => {
  const disk = new SlowDisk(openStore());
  const hub = new EventHub(disk.store);
  const heard: string[] = [];
  const follow = async (reader: string, options: { afterId?: number }): Promise<void> => {
    for await (const item of hub.subscribe({ ...options, signal })) {
      heard.push(`${reader} ${"gap" in item ? "gap" : item.event.name}`);
    }
  };
  void follow("live", {});
  void follow("late", { afterId: 0 });
  hub.publish(event("a"));
  await turn();
  hub.publish(event("line", "VM_LOG"));
  await turn();
  assert.deepEqual([heard, hub.list({ limit: 9 }), disk.pending.length], [[], [], 1]);
  disk.pending[0]?.resolve();
  await turn();
  assert.deepEqual([heard.toSorted(), disk.pending.length], [["late a", "live a"], 2]);
  disk.pending[1]?.resolve();
  await told(hub);
  assert.deepEqual(heard.sort(), ["late a", "late line", "live a", "live line"]);
});

test("lines of logs that come while the disk hangs are told up to a bound, and events all the same", async () => {
  const disk = new SlowDisk(openStore());
  const hub = new EventHub(disk.store, 20_000);
  const events = hub.subscribe({ signal });
  for (let count = 0; count < 6000; count += 1) hub.publish(event("line", "VM_LOG"));
  hub.publish(event("change"));
  await turn();
  assert.equal(disk.pending.length, 1, "all of them wait for the disk once");
  disk.pending[0]?.resolve();
  assert.equal((await names(events, 5001)).at(-1), "change", "lines beyond the bound are not told");
});

test("a disk that fails under an event does not end the telling of the next ones", async () => {
  const disk = new SlowDisk(openStore());
  const hub = new EventHub(disk.store);
  const events = hub.subscribe({ signal });
  hub.publish(event("a"));
  await turn();
  hub.publish(event("b"));
  disk.pending[0]?.reject(new Error("no space left"));
  await turn();
  disk.pending[1]?.resolve();
  // It is in the store, so it has happened.
  assert.deepEqual(await names(events, 2), ["a", "b"]);
});

test("a reader that asks for what is not kept any more is told so, once and first, and gets what is kept", async () => {
  const hub = new EventHub(openStore(undefined, { count: 10, ageMs: 1e12 }));
  for (let count = 0; count < 30; count += 1) hub.publish(event(`${count}`));
  await told(hub);
  const kept = hub.list({ limit: 100 }).map(({ id }) => id);
  assert.equal(kept.length, 10);
  const oldest = kept.at(-1) ?? 0;
  const [first, second] = await take(hub.subscribe({ afterId: FIRST_EVENT_ID, signal }), 2);
  assert.ok(first !== undefined && "gap" in first);
  assert.deepEqual([first.gap.after, first.gap.kept_after], [FIRST_EVENT_ID, oldest - 1]);
  assert.ok(second !== undefined && "id" in second && second.id === oldest);
  assert.deepEqual(await names(hub.subscribe({ afterId: oldest - 1, signal }), 1), ["20"], "nothing is missing here");
});

test("a reader with an id of an earlier version, or one that was never given out, is told of the gap", async () => {
  const hub = new EventHub(openStore());
  hub.publish(event("a"));
  await told(hub);
  for (const afterId of [17_000_000_000_123, FIRST_EVENT_ID + 5e9]) {
    assert.deepEqual(await names(hub.subscribe({ afterId, signal }), 2), ["gap", "a"], `${afterId}`);
  }
  assert.deepEqual(await names(hub.subscribe({ afterId: 0, signal }), 1), ["a"], "0 asks for what is kept");
});

test("after a restore ids go on above all that were told, also by a database that can't be read, and readers are told of what is lost", async () => {
  const path = join(directory, "restored.db");
  const file = join(directory, "restored.backup");
  /** What one volantd tells. */
  const live = async (...published: readonly string[]): Promise<number[]> => {
    const store = openStore(path);
    const hub = new EventHub(store);
    for (const name of published) hub.publish(event(name));
    await told(hub);
    const ids = hub.list({ limit: 100 }).map(({ id }) => id);
    store.close();
    return ids.toReversed();
  };
  const [a = 0] = await live("a");
  copyFileSync(path, file);
  await live("b");
  const c = (await live("c")).at(-1) ?? 0;
  let last = c;
  for (const damage of [false, true]) {
    if (damage) writeFileSync(path, "no database");
    const findRunning = async () => [];
    await restoreDatabase({ file, databasePath: path, force: false, dryRun: false, findRunning });
    const [first, d = 0] = await live("d");
    assert.equal(first, a);
    assert.ok(d > last, `${d} after ${last}`);
    last = d;
    const store = openStore(path);
    const hub = new EventHub(store);
    assert.deepEqual(await names(hub.subscribe({ afterId: 0, signal }), 3), ["a", "gap", "d"]);
    for (const afterId of [a, c, d - 2]) {
      assert.deepEqual(await names(hub.subscribe({ afterId, signal }), 2), ["gap", "d"], `after ${afterId}`);
    }
    hub.publish(event("e"));
    await told(hub);
    assert.deepEqual(await names(hub.subscribe({ afterId: d, signal }), 1), ["e"]);
    store.close();
  }
});

test("events are dropped when they are too old, and a clock that went back for a while drops no others", async () => {
  const now = Date.UTC(2026, 0, 1);
  const store = openStore(undefined, { count: 10, ageMs: 60_000 });
  const hub = new EventHub(store);
  const aged = (name: string, ageMs: number): VmEvent => ({
    ...event(name),
    timestamp: new Date(now - ageMs).toISOString(),
  });
  hub.publish(aged("old", 61_000));
  hub.publish(aged("young", 50_000));
  hub.publish(aged("of 1970", now));
  hub.publish(aged("new", 0));
  await told(hub);
  assert.deepEqual(
    hub.list({ limit: 10 }).map((item) => item.event.name),
    ["new", "of 1970", "young"],
  );
});

test("readers get only what they want, replayed and live, and their position goes on past the rest", async () => {
  const hub = new EventHub(openStore());
  for (const name of ["a", "b"]) {
    for (const type of ["VM_CREATED", "VM_LOG", "VM_RUNNING"] as const) hub.publish(event(name, type));
  }
  const filter = { names: ["b"], types: ["VM_RUNNING", "VM_LOG"] as const };
  const events = hub.subscribe({ afterId: 0, filter, signal });
  const iterator = events[Symbol.asyncIterator]();
  const next = async () => {
    const { value } = await iterator.next();
    return "gap" in value ? "gap" : value.event.type;
  };
  assert.deepEqual([await next(), await next()], ["VM_LOG", "VM_RUNNING"]);
  const waiting = next();
  for (let count = 0; count < 5; count += 1) hub.publish(event("a"));
  await told(hub);
  assert.equal(events.position, FIRST_EVENT_ID + 10);
  hub.publish(event("b", "VM_CREATED"));
  hub.publish(event("b", "VM_LOG"));
  assert.equal(await waiting, "VM_LOG");
});

test("a time says which kept events come first, and nothing of those that come; a page of the list likewise", async () => {
  const hub = new EventHub(openStore());
  for (const second of [10, 20, 30]) hub.publish(event(`${second}`, "VM_UPDATED", second));
  await told(hub);
  const filter = { sinceMs: Date.UTC(2026, 0, 1, 0, 0, 20) };
  const reading = names(hub.subscribe({ filter, signal }), 3);
  await told(hub);
  // The clock went back.
  hub.publish(event("5", "VM_UPDATED", 5));
  assert.deepEqual(await reading, ["20", "30", "5"]);
  assert.deepEqual(
    hub.list({ filter, limit: 9 }).map((item) => item.event.name),
    ["30", "20"],
  );
  const [last] = hub.list({ limit: 1 });
  assert.deepEqual(
    hub.list({ before: last?.id, limit: 2 }).map((item) => item.event.name),
    ["30", "20"],
  );
});

test("a stream ends when it is aborted, also while it waits", async () => {
  const hub = new EventHub(openStore());
  const controller = new AbortController();
  const reading = take(hub.subscribe({ signal: controller.signal }), 1);
  setImmediate(() => controller.abort());
  assert.deepEqual(await reading, []);
});
