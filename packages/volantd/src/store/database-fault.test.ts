import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test, { after } from "node:test";
import { VolantError } from "@volant/contract";
import { databaseFault, translated } from "./database-fault.ts";
import { SqliteStore } from "./sqlite-store.ts";

const directory = mkdtempSync(join(tmpdir(), "database-fault-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let files = 0;

const manifest = (name: string) => ({
  name,
  version: "1",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { entrypoint: ["/bin/hello"] },
  initramfs: { url: "file:///hello" },
});

function openStore(path: string): SqliteStore {
  return SqliteStore.open({ path, now: () => new Date(), newInstallation: () => "abcdef01" });
}

test("a database that another program holds locked refuses writes, is read all the same, and takes them afterwards", () => {
  const path = join(directory, `${files++}.db`);
  const store = openStore(path);
  store.createPlugin(manifest("before"), true);
  const shell = new DatabaseSync(path);
  shell.exec("BEGIN IMMEDIATE");
  for (const write of [
    () => store.createPlugin(manifest("refused"), true),
    () => store.setPluginEnabled("before", false),
    () => store.deletePlugin("before"),
    () => store.deleteVm(1),
  ]) {
    assert.throws(write, { name: "VolantError", code: "not_ready", message: /another program holds it locked/ });
  }
  assert.deepEqual(
    store.listPlugins().map(({ name, enabled }) => [name, enabled]),
    [["before", true]],
  );
  shell.exec("ROLLBACK");
  shell.close();
  store.createPlugin(manifest("after"), true);
  assert.equal(store.deletePlugin("before"), true);
  store.close();
});

test("a database of other bytes is refused at the start, with what to do", () => {
  const path = join(directory, `${files++}.db`);
  writeFileSync(path, "no database at all, but long enough to have a header of one hundred bytes".repeat(100));
  assert.throws(() => openStore(path), {
    name: "VolantError",
    code: "not_ready",
    message: /can't be opened: file is not a database/,
    hint: /volar restore/,
  });
});

test("a page that is damaged while the database is in use is told as that, and not as a bug", () => {
  const path = join(directory, `${files++}.db`);
  const first = openStore(path);
  for (let index = 0; index < 400; index += 1) first.createPlugin(manifest(`plugin-${index}`), true);
  first.close();
  const raw = openSync(path, "r+");
  // All pages but those that an open reads: the schema's.
  writeSync(raw, Buffer.alloc(40 * 4096, 0x5a), 0, 40 * 4096, 30 * 4096);
  closeSync(raw);
  const store = openStore(path);
  assert.throws(() => store.listPlugins(), { name: "VolantError", code: "not_ready", message: /is damaged/ });
  store.close();
});

test("what is no fault of disk, file or another program stays what it is", () => {
  const bug = new TypeError("a bug");
  assert.equal(databaseFault(bug, "x"), undefined);
  const constraint = Object.assign(new Error("UNIQUE constraint failed"), { errcode: 2067 });
  assert.equal(databaseFault(constraint, "x"), undefined);
  const object = translated(
    {
      get value() {
        return 2;
      },
      fails() {
        throw bug;
      },
    } as { readonly value: number; fails(): never },
    (error) => new VolantError("not_ready", `told: ${(error as Error).message}`),
  );
  assert.equal(object.value, 2);
  assert.throws(() => object.fails(), { code: "not_ready", message: "told: a bug" });
  assert.equal(object.fails, object.fails, "one method stays one method");
});
