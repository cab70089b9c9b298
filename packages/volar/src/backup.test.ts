/** `volar backup` as a user runs it, where what it gets is no whole backup: a child process against a real API over loopback. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import test, { after, before } from "node:test";
import { runApi, type RunningApi } from "../../volantd/src/api/testing/running-api.ts";

let running: RunningApi;
let directory: string;

before(async () => {
  running = await runApi();
  directory = mkdtempSync(join(tmpdir(), "volar-backup-"));
});
after(async () => {
  rmSync(directory, { recursive: true });
  await running.api.close();
});

async function refused(sentence: RegExp, ...args: string[]): Promise<void> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "main.ts"), "backup", ...args], {
    env: { PATH: process.env["PATH"], VOLANT_API_BASE: running.address },
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const closed = new Promise<number | null>((resolve) => child.once("close", resolve));
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  assert.match(stderr, sentence);
  assert.match(stderr, /^volar: /);
  assert.deepEqual([stdout, (await closed) === 0], ["", false]);
}

test("what is no whole backup takes the place of nothing and leaves nothing", async () => {
  writeFileSync(join(directory, "there"), "an earlier one");
  await refused(/what was sent is no whole backup: file is not a database/, "new");
  await refused(/what was sent is no whole backup/, "there", "--force");
  Object.assign(running.useCases.backups, {
    backup: async () => ({
      sizeBytes: 1_000_000,
      content: Readable.from(
        (async function* () {
          yield Buffer.alloc(10_000);
          await new Promise(setImmediate);
          throw new Error("the disk is gone");
        })(),
      ),
    }),
  });
  await refused(/the backup broke off/, "there", "--force");
  await refused(/there exists already/, "there");
  await refused(/cannot write .*nowhere.*: there is no such folder/, "nowhere/new");
  assert.deepEqual(readdirSync(directory), ["there"]);
  assert.equal(readFileSync(join(directory, "there"), "utf8"), "an earlier one");
});
