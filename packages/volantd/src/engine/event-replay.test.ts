/** What is kept of events, and replayed, against a list of all that was published: over restarts, undone transactions and clocks that jump. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import fc from "fast-check";
import type { VmEvent } from "@volant/contract";
import { SqliteStore } from "../store/sqlite-store.ts";
import { EventHub } from "./event-hub.ts";
import type { EventGap, NumberedEvent } from "./use-cases.ts";

const KEPT = 20;
const LIMIT_MS = 20_000;
// Thousands of transactions: what they are about is not how fast a disk is.
const memory = "/dev/shm";
const directory = mkdtempSync(join(existsSync(memory) ? memory : tmpdir(), "event-replay-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let files = 0;

type Action =
  | { readonly kind: "publish" | "log" | "undone"; readonly name: string }
  | { readonly kind: "restart" }
  | { readonly kind: "clock"; readonly toMs: number }
  | { readonly kind: "read"; readonly from: number; readonly name: string | undefined };

const name = fc.constantFrom("a", "b", "c");
const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constantFrom("publish" as const, "log" as const), name }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("undone" as const), name }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("restart" as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("clock" as const), toMs: fc.nat(4e12) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("read" as const),
      from: fc.nat(200),
      name: fc.option(name, { nil: undefined }),
    }),
  },
);

/** One history: the real thing, and all that was published. */
class History {
  readonly #path = join(directory, `${files++}.db`);
  #clockMs = Date.UTC(2026, 0, 1);
  #count = 0;
  #store = this.#open();
  #hub = new EventHub(this.#store);
  /** Every event that was told live, with its id. */
  readonly told: NumberedEvent[] = [];
  #live = this.#follow();

  #open(): SqliteStore {
    return SqliteStore.open({
      path: this.#path,
      now: () => new Date(this.#clockMs),
      newInstallation: () => "abcdef01",
      eventsKept: { count: KEPT, ageMs: 1e15 },
    });
  }

  #follow(): AbortController {
    const controller = new AbortController();
    const events = this.#hub.subscribe({ signal: controller.signal });
    void (async () => {
      for await (const item of events) if ("id" in item) this.told.push(item);
    })();
    return controller;
  }

  async publish(vm: string, type: VmEvent["type"] = "VM_UPDATED"): Promise<void> {
    const timestamp = new Date(this.#clockMs).toISOString();
    this.#hub.publish({ type, name: vm, timestamp, message: String(this.#count++) });
    await this.#hub.told();
    await new Promise(setImmediate);
  }

  async undone(vm: string): Promise<void> {
    const before = this.told.length;
    assert.throws(() =>
      this.#store.together(() => {
        this.#hub.publish({ type: "VM_UPDATED", name: vm, timestamp: new Date(this.#clockMs).toISOString() });
        throw new Error("undone");
      }),
    );
    await this.#hub.told();
    await new Promise(setImmediate);
    assert.equal(this.told.length, before);
  }

  restart(): void {
    this.#live.abort();
    this.#store.close();
    this.#store = this.#open();
    this.#hub = new EventHub(this.#store);
    this.#live = this.#follow();
  }

  clock(toMs: number): void {
    this.#clockMs = toMs;
  }

  /** Reads on after some event that was told once, as a reader that comes back does. */
  async read(from: number, vm: string | undefined): Promise<void> {
    const afterId = this.told.length === 0 ? 0 : (this.told[from % this.told.length]?.id ?? 0);
    const controller = new AbortController();
    const filter = { ...(vm === undefined ? {} : { names: [vm] }), types: ["VM_UPDATED", "VM_DELETED"] as const };
    const events = this.#hub.subscribe({ afterId, filter, signal: controller.signal });
    // All that was told of this kind, and what comes next ends it.
    await this.publish(vm ?? "a", "VM_DELETED");
    const end = this.told.at(-1);
    const all = this.told.filter(({ event }) => event.type !== "VM_LOG");
    const kept = this.#hub.list({ limit: 1000 }).toReversed();
    assert.deepEqual(kept, all.slice(-kept.length), "what is kept are the newest, whole and in order");
    assert.ok(kept.length <= KEPT + KEPT / 10 && kept.length >= Math.min(KEPT, all.length), `${kept.length} are kept`);
    const items: (NumberedEvent | EventGap)[] = [];
    const late = setTimeout(() => controller.abort(), LIMIT_MS);
    for await (const item of events) {
      items.push(item);
      if ("id" in item && item.id === end?.id) break;
    }
    clearTimeout(late);
    assert.ok(!controller.signal.aborted, `it waits for ${JSON.stringify(end)}, and got ${JSON.stringify(items)}`);
    controller.abort();
    const wanted = all.filter(({ id, event }) => id > afterId && (vm === undefined || event.name === vm));
    const { dropped } = this.#store.eventMarks();
    const gap = items[0] !== undefined && "gap" in items[0];
    const replayed = gap ? items.slice(1) : items;
    assert.deepEqual(replayed, wanted.slice(wanted.length - replayed.length), "in order, once, to the last");
    if (!gap) assert.equal(replayed.length, wanted.length, "nothing is missing that is not said to be");
    else assert.ok(afterId < dropped, "a gap is told only where something was dropped");
  }

  close(): void {
    this.#live.abort();
    this.#store.close();
    const ids = this.told.map(({ id }) => id);
    assert.ok(
      ids.every((id, index) => index === 0 || id > (ids[index - 1] ?? 0)),
      "ids grow, over restarts and jumps of the clock",
    );
  }
}

async function run(actions: readonly Action[]): Promise<void> {
  const history = new History();
  try {
    for (const next of actions) {
      if (next.kind === "restart") history.restart();
      else if (next.kind === "clock") history.clock(next.toMs);
      else if (next.kind === "read") await history.read(next.from, next.name);
      else if (next.kind === "undone") await history.undone(next.name);
      else await history.publish(next.name, next.kind === "log" ? "VM_LOG" : "VM_UPDATED");
    }
  } finally {
    history.close();
  }
}

test("whatever is published, undone and restarted: a reader that comes back gets each event once and in order, or is told what is gone", async () => {
  await fc.assert(fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 80, size: "max" }), run), {
    numRuns: 150,
  });
});
