import type { DatabaseSync } from "node:sqlite";
import { VolantError } from "@volant/contract";

/**
 * One entry for each version of the schema, run in order. An entry that was released is never changed.
 *
 * Uniqueness and what belongs together are the schema's to enforce: two writers, a bug or a crash can't hand one address out twice.
 */
const MIGRATIONS: readonly string[] = [
  `CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

   CREATE TABLE plugins (
     name TEXT PRIMARY KEY,
     enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
     manifest TEXT NOT NULL CHECK (json_valid(manifest)),
     created_at TEXT NOT NULL,
     updated_at TEXT NOT NULL
   ) STRICT;

   CREATE TABLE vms (
     id INTEGER PRIMARY KEY AUTOINCREMENT,
     name TEXT NOT NULL UNIQUE,
     plugin TEXT NOT NULL,
     runtime TEXT NOT NULL,
     spec TEXT NOT NULL CHECK (json_valid(spec)),
     mac TEXT NOT NULL UNIQUE,
     cid INTEGER NOT NULL UNIQUE CHECK (cid >= 3),
     tap TEXT UNIQUE,
     desired TEXT NOT NULL CHECK (desired IN ('running', 'stopped', 'absent')),
     generation INTEGER NOT NULL CHECK (generation >= 1),
     started_generation INTEGER NOT NULL DEFAULT 0 CHECK (started_generation <= generation),
     running_generation INTEGER NOT NULL DEFAULT 0 CHECK (running_generation <= generation),
     ended_generation INTEGER NOT NULL DEFAULT 0 CHECK (ended_generation <= generation),
     ended_status TEXT CHECK (ended_status IN ('stopped', 'crashed')),
     ended_reason TEXT,
     status TEXT NOT NULL CHECK (status IN ('pending', 'starting', 'running', 'stopped', 'crashed')),
     reason TEXT,
     created_at TEXT NOT NULL,
     updated_at TEXT NOT NULL
   ) STRICT;
   CREATE INDEX vms_by_plugin ON vms (plugin);
   CREATE INDEX vms_by_status ON vms (status);

   -- A released address keeps its row while it rests.
   CREATE TABLE leases (
     address INTEGER PRIMARY KEY CHECK (address BETWEEN 0 AND 4294967295),
     vm_id INTEGER UNIQUE REFERENCES vms (id),
     released_at INTEGER,
     CHECK ((vm_id IS NULL) <> (released_at IS NULL))
   ) STRICT;`,
];

export const SCHEMA_VERSION = MIGRATIONS.length;

/** The version of the schema that a database has; 0 for a new file. */
export function schemaVersion(database: DatabaseSync): number {
  return Number(database.prepare("PRAGMA user_version").get()?.["user_version"]);
}

/**
 * Brings the schema up to date, each version in a transaction of its own.
 *
 * @throws VolantError `not_ready` when the database is of a newer version; it is left as it is
 */
export function migrate(database: DatabaseSync, path: string): void {
  const found = schemaVersion(database);
  if (found > SCHEMA_VERSION) {
    throw new VolantError(
      "not_ready",
      `the database ${path} has schema version ${found}, and this volantd knows up to ${SCHEMA_VERSION}: a newer volantd made it`,
      { hint: "run that newer version, or name another database with VOLANT_DB_PATH" },
    );
  }
  for (const [index, script] of MIGRATIONS.entries()) {
    if (index < found) continue;
    database.exec(`BEGIN IMMEDIATE; ${script} PRAGMA user_version = ${index + 1}; COMMIT`);
  }
}
