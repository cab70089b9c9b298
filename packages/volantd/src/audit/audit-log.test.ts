import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { AuditLog, auditLine } from "./audit-log.ts";

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), "audit-log-"));
});
after(() => rmSync(directory, { recursive: true, force: true }));

const now = () => new Date("2026-01-01T00:00:00Z");

test("lines are JSON, the file is its owner's, and two files are all there is however much is written", async () => {
  const path = join(directory, "logs/audit.jsonl");
  const errors: unknown[] = [];
  const log = new AuditLog({ path, maxFileBytes: 2000, now, onError: (error) => errors.push(error) });
  for (let count = 0; count < 200; count += 1) {
    log.append({ count });
    if (count % 10 === 0) await log.flush();
  }
  await log.flush();
  // The newer file is made with the next line, where the last one has filled it.
  const texts = [`${path}.1`, path].map((name) => (existsSync(name) ? readFileSync(name, "utf8") : ""));
  const lines = texts.join("").trim().split("\n");
  const counts = lines.map((line) => (JSON.parse(line) as { count: number }).count);
  assert.equal(counts.at(-1), 199);
  assert.deepEqual(
    counts,
    Array.from(counts, (_, index) => 199 - counts.length + 1 + index),
    "none is missing at the turn",
  );
  assert.equal(statSync(`${path}.1`).mode & 0o777, 0o600);
  assert.ok(statSync(`${path}.1`).size < 3000);
  assert.deepEqual(errors, []);
});

test("what can't be written is told once, and counted in the next line that can be", async () => {
  const path = join(directory, "stuck");
  mkdirSync(path);
  const errors: unknown[] = [];
  const log = new AuditLog({ path, now, onError: (error) => errors.push(error) });
  for (const count of [1, 2, 3]) {
    log.append({ count });
    await log.flush();
  }
  assert.equal(errors.length, 1);
  rmSync(path, { recursive: true });
  log.append({ count: 4 });
  await log.flush();
  const lines = readFileSync(path, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as object);
  const time = "2026-01-01T00:00:00.000Z";
  assert.deepEqual(lines, [
    { time, lost_lines: 3 },
    { time, count: 4 },
  ]);
});

test("a line stays one line, and drives no terminal", () => {
  const line = auditLine({ path: "a\nb\r\u001b[31m\u0085\u2028\u2029\u009bx" });
  assert.equal(line, '{"path":"a\\nb\\r\\u001b[31m\\u0085\\u2028\\u2029\\u009bx"}\n');
  assert.equal((JSON.parse(line) as { path: string }).path, "a\nb\r\u001b[31m\u0085\u2028\u2029\u009bx");
});
