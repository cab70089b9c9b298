/** The log of a workload on a disk that is really full: a file system of its own. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { logText, WorkloadLogs } from "../../packages/volantd/src/engine/workload-logs.ts";
import type { GuestLogEntry } from "../../packages/volantd/src/guest/log-entry.ts";
import { enterOwnNamespace } from "../namespace.ts";

enterOwnNamespace(import.meta.url, "mounts");

const entry = (line: string): GuestLogEntry => ({
  kind: "line",
  seq: 1,
  stream: "stdout",
  line,
  timestamp: "2026-01-01T00:00:00.000Z",
  truncated: false,
});

test("lines that a full disk does not take are counted, whole lines before them are kept, and one line says so when it goes on", async (t) => {
  const disk = mkdtempSync(join(tmpdir(), "log-disk-"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", disk]);
  t.after(() => {
    execFileSync("umount", [disk]);
    rmSync(disk, { recursive: true });
  });
  const errors: unknown[] = [];
  const logs = new WorkloadLogs(disk, (error) => errors.push(error));
  const path = join(disk, "web.log");
  const lines = () => readFileSync(path, "utf8").split("\n").slice(0, -1);
  const say = async (...said: readonly string[]): Promise<void> => {
    for (const line of said) logs.append("web", entry(line));
    await logs.flush();
  };
  await say("first");
  writeFileSync(join(disk, "filler"), Buffer.alloc(56 * 1024));
  const many = Array.from({ length: 100 }, (_none, count) => `${count} ${"x".repeat(100)}`);
  await say(...many);
  await say("none of this", "nor of this");
  const kept = lines().length;
  assert.ok(kept > 1 && kept < 100, `${kept} lines`);
  assert.equal(errors.length, 3, "each write that failed is told");
  assert.deepEqual(
    lines(),
    ["first", ...many].slice(0, kept).map((line) => logText(entry(line)).trimEnd()),
  );
  assert.equal(await logs.lastLine("web"), logText(entry(many[kept - 2] ?? "")));
  rmSync(join(disk, "filler"));
  await say("on it goes");
  await say("and on");
  assert.deepEqual(lines().slice(kept), [
    `- volantd ${101 - kept + 2} lines lost: the disk was full`,
    logText(entry("on it goes")).trimEnd(),
    logText(entry("and on")).trimEnd(),
  ]);
});
