import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, watch, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { parseSubnet } from "../model/address.ts";
import { tapNames } from "../model/tap-name.ts";
import { vmSpec } from "../testing/vm-spec.ts";
import { SqliteStore } from "./sqlite-store.ts";

const directory = mkdtempSync(join(tmpdir(), "temporary-files-"));
after(() => rmSync(directory, { recursive: true, force: true }));

test("SQLite makes no temporary file, of which a killed volantd could leave one behind", async () => {
  const temporary = join(directory, "temporary");
  mkdirSync(temporary);
  // Read once, when the first database of the process is opened (sqlite.org/tempfiles.html).
  process.env["SQLITE_TMPDIR"] = temporary;
  const made = new Set<string>();
  const told = Promise.withResolvers<void>();
  const watcher = watch(temporary, (_, name) => {
    made.add(String(name));
    if (name === "last") told.resolve();
  });
  const pool = { subnet: parseSubnet("10.0.0.0/20"), gateway: 0x0a000001 };
  let clock = Date.UTC(2026, 0, 1);
  const path = join(directory, "volant.db");
  const store = SqliteStore.open({ path, now: () => new Date(clock), newInstallation: () => "abcdef01", restMs: 1000 });
  const create = (name: string) => store.createVm({ spec: vmSpec(name), tapNames: tapNames(name), pool }).id;
  // As many as are needed for what one statement changes to be more than SQLite keeps in memory otherwise: 64 KiB.
  const ids = Array.from({ length: 2000 }, (_, index) => create(`vm-${index}`));
  for (const id of ids) store.deleteVm(id);
  clock += 1001;
  create("after-all-addresses-have-rested");
  store.close();
  // The kernel tells in order what happened in a folder: when this one is told, so is all that was before.
  writeFileSync(join(temporary, "last"), "");
  await told.promise;
  watcher.close();
  assert.deepEqual([...made], ["last"]);
});
