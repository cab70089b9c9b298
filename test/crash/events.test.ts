/** Events with memory: volantd is killed between an event and its reader, under real VMs of the stand-in hypervisor. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import test, { after, before } from "node:test";
import type { NumberedVmEvent } from "@volant/contract";
import { VolantClient } from "@volant/sdk";
import { enterOwnNamespace } from "../namespace.ts";
import { inParallel, StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

const LIMIT_MS = 120_000;
const baseUrl = "http://127.0.0.1:7777";
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open();
});

after(async () => {
  await at?.close();
});

/** The events that the database holds, read from there and not from volantd. */
function stored(): NumberedVmEvent[] {
  const database = new DatabaseSync(at.house.environment["VOLANT_DB_PATH"] ?? "", { readOnly: true });
  const rows = database.prepare("SELECT id, event FROM events ORDER BY id").all();
  database.close();
  return rows.map(({ id, event }) => ({
    id: Number(id),
    ...(JSON.parse(String(event)) as object),
  })) as NumberedVmEvent[];
}

/** What a reader has got so far, over as many connections as it took. */
class Reader {
  readonly got: NumberedVmEvent[] = [];
  readonly gaps: string[] = [];
  readonly #controller = new AbortController();
  readonly #ended: Promise<void>;
  #look = () => {};

  constructor(afterId?: number) {
    this.#ended = this.#read(afterId);
  }

  async #read(afterId: number | undefined): Promise<void> {
    const { signal } = this.#controller;
    const client = new VolantClient({ baseUrl });
    try {
      for await (const event of client.events({
        afterId,
        signal,
        onGap: ({ message }) => void this.gaps.push(message),
      })) {
        if (event.type !== "VM_LOG") this.got.push(event);
        this.#look();
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** Resolves once `done` holds for what it got. */
  async until(done: (got: readonly NumberedVmEvent[]) => boolean): Promise<void> {
    const late = Promise.withResolvers<never>();
    const seen = () => this.got.slice(-20).map(({ name, type }) => `${name} ${type}`);
    const timer = setTimeout(
      () => late.reject(new Error(`not so within ${LIMIT_MS} ms; the last ones: ${seen().join(", ")}`)),
      LIMIT_MS,
    );
    const now = new Promise<void>((resolve) => {
      this.#look = () => {
        if (done(this.got)) resolve();
      };
      this.#look();
    });
    await Promise.race([now, late.promise, this.#ended.then(() => now)]);
    clearTimeout(timer);
  }

  async close(): Promise<void> {
    this.#controller.abort();
    await this.#ended;
  }
}

const has = (name: string, type: string) => (got: readonly NumberedVmEvent[]) =>
  got.some((event) => event.name === name && event.type === type);

const ofNames = (events: readonly NumberedVmEvent[], names: readonly string[]) =>
  names.map((name) => events.filter((event) => event.name === name).map(({ type, status }) => `${type} ${status}`));

test("a reader gets every event once and in order though volantd is killed again and again, and the list agrees", async () => {
  const reader = new Reader(0);
  const names = ["r-0", "r-1", "r-2", "r-3"];
  for (const [round, name] of names.entries()) {
    await at.create(name);
    // At another moment each time: at once, when it runs, when it was told to stop.
    if (round > 0) await reader.until(has(name, "VM_RUNNING"));
    if (round > 1) await at.ask(200, "POST", `vms/${name}/stop`);
    await at.house.stopVolantd("SIGKILL");
    await at.house.startVolantd();
  }
  await reader.until((got) => has("r-0", "VM_RUNNING")(got) && has("r-3", "VM_STOPPED")(got));
  await inParallel(4, names, (name) => at.delete(name));
  await reader.until((got) => names.every((name) => has(name, "VM_DELETED")(got)));
  await reader.close();

  const kept = stored();
  assert.deepEqual(reader.gaps, []);
  assert.deepEqual(reader.got, kept, "what is told is what is stored: each once, in order, with its id");
  const ids = kept.map(({ id }) => id);
  assert.deepEqual(
    ids,
    [...new Set(ids)].sort((a, b) => a - b),
  );
  for (const types of ofNames(kept, names)) {
    assert.equal(types[0], "VM_CREATED pending");
    assert.equal(types.filter((type) => type === "VM_CREATED pending").length, 1);
    assert.ok(types.includes("VM_RUNNING running"));
    assert.equal(types.filter((type) => type.startsWith("VM_DELETED")).length, 1);
    assert.ok(types.at(-1)?.startsWith("VM_DELETED"), types.join(", "));
  }
  const client = new VolantClient({ baseUrl });
  assert.deepEqual(
    (await client.pastEvents({ name: ["r-2"], limit: 1000 })).toReversed(),
    kept.filter(({ name }) => name === "r-2"),
  );
  assert.deepEqual(at.leaks(), []);
});

test("a crash is told once, with its last words, to a reader that comes back after volantd was killed", async () => {
  await at.create("panicking", "standin.panic_after_ms=200");
  const live = new Reader();
  await at.until((vms) => vms.some(({ name, status }) => name === "panicking" && status === "crashed"));
  await live.close();
  await at.house.stopVolantd("SIGKILL");
  await at.house.startVolantd();
  const late = new Reader(0);
  await late.until(has("panicking", "VM_CRASHED"));
  await at.delete("panicking");
  await late.until(has("panicking", "VM_DELETED"));
  await late.close();
  const crashes = late.got.filter(({ name, type }) => name === "panicking" && type === "VM_CRASHED");
  assert.equal(crashes.length, 1, JSON.stringify(crashes));
  assert.match(crashes[0]?.message ?? "", /panicked.*\n.*Kernel panic/s);
});
