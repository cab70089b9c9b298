import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { type TestContext } from "node:test";
import fc from "fast-check";
import {
  archiveConsole,
  MAX_FILE_BYTES,
  readTail,
  ROTATE_AT_BYTES,
  tailLines,
  unfinishedArchive,
} from "./console-log.ts";

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "volant-console-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test("lines of a console are shown without what would act on a terminal", () => {
  const text = "\u001B[31mred\u001B[0m\r\n\u001B]0;title\u0007after\u0000\u0008\n\n\u202Eback\u009B1m\nlast";
  assert.deepEqual(tailLines(Buffer.from(text)), ["red", "after", "back1m", "last"]);
  assert.equal(tailLines(Buffer.from("x".repeat(500)))[0]?.length, 201);
  assert.equal(tailLines(Buffer.from("a\n".repeat(100))).length, 20);
});

test("no bytes of a guest's bring a control character to the reader", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
      for (const line of tailLines(bytes)) assert.doesNotMatch(line, /\p{Cc}/u);
    }),
    { numRuns: 1000 },
  );
});

test("a large console moves to the archive, and its writer goes on at the start", async (t) => {
  const folder = scratch(t);
  const path = join(folder, "console");
  const archive = join(folder, "archive");
  const writer = openSync(path, "a");
  writeSync(writer, "small\n");
  assert.equal(await archiveConsole(path, archive), false);
  writeSync(writer, Buffer.alloc(ROTATE_AT_BYTES, "y"));
  assert.equal(await archiveConsole(path, archive), true);
  writeSync(writer, "after\n");
  closeSync(writer);
  assert.equal(statSync(archive).size, ROTATE_AT_BYTES + 6);
  assert.equal(readFileSync(path, "utf8"), "after\n");
  assert.equal(await archiveConsole(path, archive, true), true);
  assert.equal(readFileSync(archive, "utf8"), "after\n");
});

test("where a console was full, its archive says that lines are missing, and is no larger for it", async (t) => {
  const folder = scratch(t);
  const path = join(folder, "console");
  const archive = join(folder, "archive");
  writeFileSync(path, `${"y".repeat(MAX_FILE_BYTES - 4)}last`);
  assert.equal(await archiveConsole(path, archive), true);
  assert.equal(statSync(archive).size, MAX_FILE_BYTES);
  assert.match(readFileSync(archive, "utf8"), /^y+last\n- volantd lines lost: the console's log was full[^\n]*\n$/);
  writeFileSync(path, "after\n");
  assert.equal(await archiveConsole(path, archive, true), true);
  assert.equal(readFileSync(archive, "utf8"), "after\n");
});

test("a console that was interrupted while it moved is moved whole the next time", async (t) => {
  const folder = scratch(t);
  const path = join(folder, "console");
  const archive = join(folder, "archive");
  writeFileSync(path, `${"y".repeat(ROTATE_AT_BYTES)}last words\n`);
  writeFileSync(unfinishedArchive(archive), "half of it");
  assert.equal(await archiveConsole(path, archive), true);
  assert.match(readFileSync(archive, "utf8"), /^y+last words\n$/);
  assert.equal(existsSync(unfinishedArchive(archive)), false);
});

test("what lies in a console's place and is no file is neither read nor waited for", async (t) => {
  const folder = scratch(t);
  const secret = join(folder, "secret");
  writeFileSync(secret, "secret");
  symlinkSync(secret, join(folder, "link"));
  execFileSync("mkfifo", [join(folder, "fifo")]);
  for (const name of ["link", "fifo", "absent"]) {
    const path = join(folder, name);
    assert.equal((await readTail(path)).length, 0, name);
    assert.equal(await archiveConsole(path, join(folder, "archive"), true), false, name);
  }
  assert.equal(readFileSync(secret, "utf8"), "secret");
});

test("only the end of a long console is read", async (t) => {
  const path = join(scratch(t), "console");
  appendFileSync(path, "first\n" + "z".repeat(100_000) + "\nlast\n");
  const tail = await readTail(path);
  assert.equal(tail.length, 16 * 1024);
  assert.equal(tailLines(tail).at(-1), "last");
});
