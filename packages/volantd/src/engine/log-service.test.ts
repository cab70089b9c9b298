import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import type { GuestLogEntry } from "../guest/log-entry.ts";
import { parseStored } from "./log-reader.ts";
import { LogService } from "./log-service.ts";
import type { LogOptions, StoredLogLine } from "./use-cases.ts";
import { WorkloadLogs } from "./workload-logs.ts";

const timestamp = "2026-01-01T00:00:00.000Z";
const entry = (line: string): GuestLogEntry => ({
  kind: "line",
  seq: 1,
  stream: "stdout",
  line,
  timestamp,
  truncated: false,
});

class Bench {
  readonly directory = mkdtempSync(join(tmpdir(), "log-service-"));
  readonly logs = new WorkloadLogs(this.directory, (error) => assert.fail(String(error)));
  readonly service = new LogService({
    store: { findVm: (name: string) => (name === "web" ? ({} as never) : undefined) },
    logs: this.logs,
  });
  readonly closing = new AbortController();

  constructor(context: TestContext) {
    context.after(() => {
      this.closing.abort();
      rmSync(this.directory, { recursive: true });
    });
  }

  print(...lines: string[]): void {
    for (const line of lines) this.logs.append("web", entry(line));
  }

  /** Prints more than a file takes, or about `bytes` bytes, and waits until they are in the file. */
  async fill(word: string, bytes = 1_400_000): Promise<void> {
    for (let count = 0; count < bytes / 1100; count += 1) {
      this.print(`${word} ${count} ${"x".repeat(1000)}`);
      if (count % 300 === 299) await this.logs.flush();
    }
    await this.logs.flush();
  }

  read(options: Partial<LogOptions> = {}): AsyncIterator<StoredLogLine> {
    const given = { follow: false, signal: this.closing.signal, ...options };
    return this.service.read("web", given)[Symbol.asyncIterator]();
  }

  async all(options: Partial<LogOptions> = {}): Promise<StoredLogLine[]> {
    const lines: StoredLogLine[] = [];
    const reader = this.read(options);
    for (let next = await reader.next(); next.done !== true; next = await reader.next()) lines.push(next.value);
    return lines;
  }
}

const words = (lines: readonly StoredLogLine[]) => lines.map(({ line }) => line.line);

async function take(reader: AsyncIterator<StoredLogLine>): Promise<StoredLogLine> {
  const next = await reader.next();
  assert.ok(next.done !== true, "the log goes on");
  return next.value;
}

test("stored lines are read with their time and stream, and what was printed just now is among them", async (context) => {
  const bench = new Bench(context);
  assert.deepEqual(await bench.all(), []);
  bench.print("one", "\u001b[2Jtwo");
  bench.logs.append("web", { kind: "gap", from: 3, to: 5 });
  assert.deepEqual(
    (await bench.all()).map(({ line }) => line),
    [
      { name: "web", stream: "stdout", line: "one", timestamp },
      { name: "web", stream: "stdout", line: "\\u001b[2Jtwo", timestamp },
      { name: "web", stream: "agent", line: "lines 3 to 5 were lost", timestamp },
    ],
  );
});

test("a VM that is not there has no log, and that is said before anything is read", (context) => {
  const bench = new Bench(context);
  assert.throws(() => bench.service.read("none", { follow: false, signal: bench.closing.signal }), {
    code: "not_found",
  });
});

test("the last lines are the last ones, also across a rotation", async (context) => {
  const bench = new Bench(context);
  await bench.fill("old");
  bench.print("a", "b", "c");
  assert.deepEqual(words(await bench.all({ tail: 2 })), ["b", "c"]);
  assert.deepEqual(await bench.all({ tail: 0 }), []);
  const across = words(await bench.all({ tail: 5 }));
  assert.match(across[0] ?? "", /^old/);
  assert.deepEqual([across.length, ...across.slice(2)], [5, "a", "b", "c"]);
  assert.equal((await bench.all({ tail: 1_000_000 })).length, (await bench.all()).length);
});

test("a reader that follows gets each line once, over rotations", async (context) => {
  const bench = new Bench(context);
  bench.print("first");
  const reader = bench.read({ follow: true });
  assert.equal((await take(reader)).line.line, "first");
  const wanted = 3000;
  const writing = (async () => {
    for (let count = 0; count < wanted; count += 1) {
      bench.print(`${count} ${"x".repeat(1000)}`);
      if (count % 300 === 299) await bench.logs.flush();
      await new Promise(setImmediate);
    }
  })();
  for (let count = 0; count < wanted; count += 1) {
    assert.equal((await take(reader)).line.line.split(" ")[0], String(count));
  }
  await writing;
});

test("a reader that follows waits for a log that is not there yet, and ends when it is told to", async (context) => {
  const bench = new Bench(context);
  const ending = new AbortController();
  const reader = bench.read({ follow: true, signal: ending.signal });
  const first = reader.next();
  bench.print("hello");
  assert.equal((await first).value?.line.line, "hello");
  const last = reader.next();
  ending.abort();
  assert.equal((await last).done, true);
});

test("a reader that is left behind by two rotations is cut off with a message, and nothing waits for it", async (context) => {
  const bench = new Bench(context);
  await bench.fill("a", 10_000);
  const reader = bench.read({ follow: true });
  await take(reader);
  for (const word of ["b", "c", "d"]) await bench.fill(word);
  bench.print("e");
  await assert.rejects(
    async () => {
      for (;;) await take(reader);
    },
    { code: "rate_limited", message: /cut off/ },
  );
});

test("a cursor goes on after its line, by another service too, and one whose line is gone gets what there is and a remark", async (context) => {
  const bench = new Bench(context);
  bench.print("a", "b", "c");
  const [, second] = await bench.all();
  assert.ok(second !== undefined);
  const other = new LogService({
    store: { findVm: () => ({}) as never },
    logs: new WorkloadLogs(bench.directory, () => {}),
  });
  const again: StoredLogLine[] = [];
  for await (const line of other.read("web", { follow: false, after: second.cursor, signal: bench.closing.signal })) {
    again.push(line);
  }
  assert.deepEqual(words(again), ["c"]);
  await bench.fill("d");
  assert.match(words(await bench.all({ after: second.cursor }))[0] ?? "", /^c$/);
  await bench.fill("e");
  const gone = await bench.all({ after: second.cursor });
  assert.deepEqual([gone[0]?.line.stream, gone[0]?.line.line], ["volantd", "lines before these are gone"]);
  assert.match(gone[1]?.line.line ?? "", /^[de] \d+ /);
});

test("the deletion of a VM ends its readers", async (context) => {
  const bench = new Bench(context);
  bench.print("a");
  const reader = bench.read({ follow: true });
  await take(reader);
  const next = reader.next();
  await bench.logs.remove("web");
  await assert.rejects(next, { code: "not_found", message: /was deleted/ });
});

test("what nobody of ours has written is passed over", async (context) => {
  const bench = new Bench(context);
  writeFileSync(join(bench.directory, "web.log"), `nonsense\n\n${timestamp} stdout fine\nhalf a li`);
  assert.deepEqual(words(await bench.all()), ["fine"]);
  assert.equal(parseStored("web", `${timestamp} other x`, timestamp), undefined);
});
