import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import test, { after, beforeEach } from "node:test";
import { SqliteStore } from "./sqlite-store.ts";

const directory = mkdtempSync(join(tmpdir(), "backup-file-"));
after(() => rmSync(directory, { recursive: true, force: true }));
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(directory, "store-"));
});

const manifest = (name: string) => ({
  name,
  version: "1",
  labels: { filling: "x".repeat(4000) },
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { entrypoint: ["/bin/hello"] },
  initramfs: { url: "file:///hello" },
});

function openStore(path: string): SqliteStore {
  return SqliteStore.open({ path, now: () => new Date(), newInstallation: () => "abcdef01" });
}

test("a backup is a store of its own with all that was there, and leaves no file beside the database", async () => {
  const path = join(folder, "state.db");
  const store = openStore(path);
  for (let index = 0; index < 2000; index += 1) store.createPlugin(manifest(`plugin-${index}`), true);
  const before = readdirSync(folder);
  const { sizeBytes, content } = await store.backup();
  assert.deepEqual(readdirSync(folder), before);
  const bytes = await buffer(content);
  assert.equal(bytes.length, sizeBytes);
  const copy = join(folder, "copy.db");
  writeFileSync(copy, bytes);
  const again = openStore(copy);
  assert.deepEqual([again.installation, again.listPlugins()], ["abcdef01", store.listPlugins()]);
  again.close();
  store.close();
});

test("writes go on while a backup is made, and it has each of them whole or not at all, none before an earlier one", async () => {
  const store = openStore(join(folder, "state.db"));
  for (let index = 0; index < 2000; index += 1) store.createPlugin(manifest(`filling-${index}`), true);
  let isMade = false;
  const made = store.backup().finally(() => (isMade = true));
  let written = 0;
  while (!isMade) {
    store.createPlugin(manifest(`late-${String(written++).padStart(6, "0")}`), true);
    await new Promise(setImmediate);
  }
  const copy = join(folder, "copy.db");
  writeFileSync(copy, await buffer((await made).content));
  const again = openStore(copy);
  const late = again.listPlugins().flatMap(({ name }) => (name.startsWith("late-") ? [name] : []));
  assert.deepEqual(
    late,
    Array.from({ length: late.length }, (_none, index) => `late-${String(index).padStart(6, "0")}`),
  );
  assert.ok(written > 0);
  again.close();
  store.close();
});

test("one backup is made at a time, and what a killed one left is removed at the next start", async () => {
  const path = join(folder, "state.db");
  const store = openStore(path);
  const first = store.backup();
  await assert.rejects(store.backup(), { code: "in_use", message: "a backup is being made already" });
  (await first).content.destroy();
  (await store.backup()).content.destroy();
  store.close();
  writeFileSync(join(folder, ".state.db.volant-backup-0"), "half");
  writeFileSync(join(folder, ".state.db.volant-backup-0-journal"), "half");
  writeFileSync(join(folder, "state.db.backup-0"), "the user's");
  openStore(path).close();
  const left = readdirSync(folder).filter((name) => name.includes("backup"));
  assert.deepEqual(left, ["state.db.backup-0"]);
});
