import assert from "node:assert/strict";
import { once, EventEmitter } from "node:events";
import test from "node:test";
import { VolantError } from "@volant/contract";
import type { ObservedPolicyTable } from "@volant/host/guest-policy";
import type { NftablesChange, NftablesTable } from "@volant/netlink";
import { PolicyTable } from "./policy-table.ts";

const limit = { timeout: 30_000 };
const nothing: ObservedPolicyTable = {
  rules: "intact",
  elements: [],
  others: [],
  empty: true,
  entries: [],
  damaged: [],
  dropped: new Map(),
  droppedWithoutEntry: { frames: 0, bytes: 0 },
};
const GUESTS = { family: 7, name: "volant" };
const named = (tap: string): ObservedPolicyTable => ({
  ...nothing,
  entries: [{ vmId: 1, tap, antiSpoof: false }],
});

/** A kernel whose table is whatever was written last, and that tells of changes when it is asked to. */
class Kernel {
  state = named("first");
  listings = 0;
  /** What each change was made from: undefined where the table was to be listed. */
  readonly bases: (string | undefined)[] = [];
  /** Holds changes up until it resolves. */
  hold: Promise<void> = Promise.resolve();
  fails = false;
  readonly #news = new EventEmitter();
  readonly #told: NftablesChange[] = [];
  readonly table = new PolicyTable({
    open: async () => ({
      observe: async () => {
        this.listings += 1;
        await new Promise(setImmediate);
        return this.state;
      },
      change: async (put, _gone, known) => {
        this.bases.push(known?.entries[0]?.tap);
        await this.hold;
        if (this.fails) throw new VolantError("not_ready", "no");
        this.state = named(put[0]?.tap ?? "none");
        return { after: this.state, by: [100] };
      },
    }),
    watch: (signal) => this.#watch(signal),
    isGuestTable: ({ family, name }) => family === GUESTS.family && name === GUESTS.name,
  });
  /** Calls of others that were told. */
  told = 0;
  readonly #ending = new AbortController();
  readonly watching = this.#follow();

  async #follow(): Promise<void> {
    for await (const _ of this.table.watch(this.#ending.signal)) {
      this.told += 1;
      this.#news.emit("judged");
    }
  }

  async *#watch(signal: AbortSignal): AsyncGenerator<NftablesChange, void, undefined> {
    for (;;) {
      const change = this.#told.shift();
      if (change !== undefined) yield change;
      else if (signal.aborted) return;
      else await once(this.#news, "change", { signal }).catch(() => {});
    }
  }

  tell(by: number | undefined, tables: readonly NftablesTable[] | undefined = by === undefined ? by : [GUESTS]): void {
    this.#told.push({ by, tables });
    this.#news.emit("change");
  }

  async judged(): Promise<void> {
    await once(this.#news, "judged", { signal: AbortSignal.timeout(10_000) });
  }

  async end(): Promise<void> {
    this.#ending.abort();
    await this.watching;
  }
}

const policy = (tap: string) =>
  ({ vmId: 1, tap, mac: "02:00:00:00:00:01", mode: "bridged", addresses: [], antiSpoof: false }) as const;
const tapOf = ({ entries }: ObservedPolicyTable): string | undefined => entries[0]?.tap;

test("what was listed once is known until somebody else changes it", limit, async () => {
  const kernel = new Kernel();
  assert.equal(tapOf(await kernel.table.read()), "first");
  assert.equal(tapOf(await kernel.table.read()), "first");
  assert.equal(kernel.listings, 1);
  kernel.state = named("another's");
  const judged = kernel.judged();
  kernel.tell(7);
  await judged;
  assert.equal(tapOf(await kernel.table.read()), "another's");
  assert.equal(kernel.listings, 2);
  await kernel.end();
});

test(
  "a change of our own leads from what is known to what is, without a listing, and its news is nobody else's",
  limit,
  async () => {
    const kernel = new Kernel();
    await kernel.table.read();
    await kernel.table.change([policy("ours")], []);
    kernel.tell(100);
    await new Promise(setImmediate);
    assert.equal(tapOf(await kernel.table.read()), "ours");
    assert.deepEqual([kernel.listings, kernel.told, kernel.bases], [1, 0, ["first"]]);
    await kernel.end();
  },
);

test("news of our own change that comes before the change is over is known as ours in the end", limit, async () => {
  const kernel = new Kernel();
  await kernel.table.read();
  const gate = Promise.withResolvers<void>();
  kernel.hold = gate.promise;
  const change = kernel.table.change([policy("ours")], []);
  kernel.tell(100);
  await new Promise(setImmediate);
  const read = kernel.table.read();
  gate.resolve();
  await change;
  assert.equal(tapOf(await read), "ours");
  assert.deepEqual([kernel.listings, kernel.told], [1, 0]);
  await kernel.end();
});

test("what somebody else does while a change of ours is under way is not lost in what that leaves", limit, async () => {
  const kernel = new Kernel();
  await kernel.table.read();
  const gate = Promise.withResolvers<void>();
  kernel.hold = gate.promise;
  const change = kernel.table.change([policy("ours")], []);
  const judged = kernel.judged();
  kernel.tell(7);
  gate.resolve();
  await change;
  kernel.state = named("another's");
  await judged;
  assert.equal(tapOf(await kernel.table.read()), "another's");
  await kernel.end();
});

test(
  "what somebody else does in other tables is told, and has nothing listed; in ours too, it has",
  limit,
  async () => {
    const kernel = new Kernel();
    const tell = async (tables: readonly NftablesTable[]) => {
      const judged = kernel.judged();
      kernel.tell(7, tables);
      await judged;
      await kernel.table.read();
    };
    await kernel.table.read();
    await tell([{ family: 2, name: "volant" }]);
    await tell([
      { family: 1, name: "firewalld" },
      { family: 7, name: "volant-2" },
    ]);
    await tell([]);
    assert.deepEqual([kernel.told, kernel.listings], [3, 1]);
    await tell([{ family: 2, name: "filter" }, GUESTS]);
    assert.deepEqual([kernel.told, kernel.listings], [4, 2]);
    await kernel.end();
  },
);

test("a change that fails, and news that was missed, have the table listed again", limit, async () => {
  const kernel = new Kernel();
  await kernel.table.read();
  kernel.fails = true;
  await assert.rejects(kernel.table.change([policy("ours")], []), VolantError);
  await kernel.table.read();
  assert.equal(kernel.listings, 2);
  const judged = kernel.judged();
  kernel.tell(undefined);
  await judged;
  await kernel.table.read();
  assert.equal(kernel.listings, 3);
  await kernel.end();
  await kernel.table.read();
  await kernel.table.read();
  assert.equal(kernel.listings, 5, "and so has an end of the news");
});
