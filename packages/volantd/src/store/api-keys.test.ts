import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { KeyService } from "../engine/key-service.ts";
import { SqliteStore } from "./sqlite-store.ts";

function openStore(path: string): SqliteStore {
  return SqliteStore.open({ path, now: () => new Date(), newInstallation: () => "0123abcd" });
}

test("keys outlive a restart, and their secrets are not in the database", () => {
  const directory = mkdtempSync(join(tmpdir(), "api-keys-"));
  const path = join(directory, "state.db");
  let nowMs = Date.parse("2026-01-01T00:00:00Z");
  const serve = (store: SqliteStore) =>
    new KeyService({ keys: store.keys, now: () => new Date(nowMs), onError: (error) => assert.fail(String(error)) });
  const store = openStore(path);
  const keys = serve(store);
  const { key } = keys.create({ name: "ci", scope: "operate" });
  const gone = keys.create({ name: "gone", scope: "admin" });
  assert.throws(() => keys.create({ name: "ci", scope: "read" }), /an API key named "ci" exists already/);
  keys.revoke("gone");
  assert.throws(() => keys.revoke("gone"), /there is no API key named "gone"/);
  const found = keys.find(key);
  assert.deepEqual([found?.name, found?.scope], ["ci", "operate"]);
  keys.used(found?.id ?? 0);
  nowMs += 59_000;
  keys.used(found?.id ?? 0);
  store.close();

  const reopened = openStore(path);
  const again = serve(reopened);
  assert.equal(again.find(key)?.name, "ci");
  assert.equal(again.find(gone.key), undefined);
  assert.deepEqual(
    again.list().map(({ name, scope, last_used_at }) => [name, scope, last_used_at]),
    [["ci", "operate", "2026-01-01T00:00:00.000Z"]],
  );
  assert.notEqual(again.create({ name: "gone", scope: "read" }).key, gone.key);
  reopened.close();
  const bytes = readFileSync(path);
  assert.ok(bytes.includes("ci"));
  assert.ok(!bytes.includes(key) && !bytes.includes(key.slice("volant_".length)));
  rmSync(directory, { recursive: true });
});
