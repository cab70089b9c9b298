import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import type { GuestLogEntry } from "../guest/log-entry.ts";
import { logText, WorkloadLogs } from "./workload-logs.ts";

const directory = mkdtempSync(join(tmpdir(), "logs-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const entry = (line: string): GuestLogEntry => ({
  kind: "line",
  seq: 1,
  stream: "stdout",
  line,
  timestamp: "2026-01-01T00:00:00.000Z",
  truncated: false,
});

test("a line is written with its time and stream, and what it would do to a terminal is shown instead of done", () => {
  assert.equal(logText(entry("hello\tworld")), "2026-01-01T00:00:00.000Z stdout hello\tworld\n");
  assert.equal(
    logText(entry("\u001b[2Jx\ry\n2026 stdout forged")),
    "2026-01-01T00:00:00.000Z stdout \\u001b[2Jx\\u000dy\\u000a2026 stdout forged\n",
  );
  assert.equal(logText({ kind: "gap", from: 3, to: 9 }), "- agent lines 3 to 9 were lost\n");
});

test("a workload that floods its log fills two files of bounded size and no more", async () => {
  const folder = join(directory, "flood");
  const logs = new WorkloadLogs(folder, (error) => assert.fail(String(error)));
  for (let round = 0; round < 40; round += 1) {
    for (let count = 0; count < 2000; count += 1) logs.append("web", entry("x".repeat(100)));
    await logs.flush();
  }
  assert.ok(readdirSync(folder).every((name) => name === "web.log" || name === "web.log.1"));
  const bytes = readdirSync(folder).map((name) => statSync(join(folder, name)).size);
  for (const size of bytes) assert.ok(size < 2.5 * 1024 * 1024, `${size} bytes`);
  await logs.remove("web");
  assert.deepEqual(readdirSync(folder), []);
});

test("lines that come faster than the disk takes them are dropped, and that is said", async () => {
  const folder = join(directory, "fast");
  const logs = new WorkloadLogs(folder, (error) => assert.fail(String(error)));
  for (let count = 0; count < 30_000; count += 1) logs.append("web", entry("x".repeat(100)));
  await logs.flush();
  const text = readdirSync(folder)
    .map((name) => readFileSync(join(folder, name), "utf8"))
    .join("");
  assert.match(text, /lines came too fast and were dropped/);
});

test("the last line that was written can be found again, also right after a rotation", async () => {
  const folder = join(directory, "last");
  const logs = new WorkloadLogs(folder, (error) => assert.fail(String(error)));
  assert.equal(await logs.lastLine("web"), undefined);
  logs.append("web", entry("first"));
  logs.append("web", entry("second"));
  await logs.flush();
  assert.equal(await logs.lastLine("web"), logText(entry("second")));
  for (let count = 0; count < 9000; count += 1) {
    logs.append("web", entry(`${count} ${"x".repeat(100)}`));
    if (count === 4500) await logs.flush();
  }
  await logs.flush();
  assert.deepEqual(readdirSync(folder), ["web.log.1"]);
  assert.equal(await logs.lastLine("web"), logText(entry(`8999 ${"x".repeat(100)}`)));
});

test("a link in the place of a log is not followed", async () => {
  const errors: unknown[] = [];
  const logs = new WorkloadLogs(directory, (error) => errors.push(error));
  const target = join(directory, "precious");
  writeFileSync(target, "precious");
  symlinkSync(target, join(directory, "web.log"));
  logs.append("web", entry("x"));
  await logs.flush();
  assert.equal(readFileSync(target, "utf8"), "precious");
  assert.equal(errors.length, 1);
});
