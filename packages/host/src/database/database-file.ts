/** Databases of volantd as files, while no volantd has them open: what is in one, and what a restore changes in it. */
import { DatabaseSync } from "node:sqlite";
import { VolantError } from "@volant/contract";
import { tryLockDatabase, type DatabaseLock } from "./database-lock.ts";
import type { DatabaseFacts, RestorePlan, VmRow } from "./plan-restore.ts";

/** What volantd keeps of ids of events: up to where they may have been given out, and which were lost with a database. */
const EVENTS_RESERVED = "events_reserved";
const EVENTS_LOST_AFTER = "events_lost_after";
const EVENTS_LOST_BEFORE = "events_lost_before";

type Row = Record<string, unknown>;

function vmRow(row: Row): VmRow {
  return {
    id: Number(row["id"]),
    name: String(row["name"]),
    desired: String(row["desired"]),
    generation: Number(row["generation"]),
    startedGeneration: Number(row["started_generation"]),
    endedGeneration: Number(row["ended_generation"]),
    inForce: JSON.stringify([row["spec"], row["tap"], row["mac"], row["address"]]),
  };
}

function readFacts(database: DatabaseSync, path: string): DatabaseFacts {
  const one = (query: string): Row => database.prepare(query).get() ?? {};
  const integrity = database.prepare("PRAGMA integrity_check(1)").get()?.["integrity_check"];
  if (integrity !== "ok") throw new Error(`it is damaged: ${String(integrity)}`);
  if (database.prepare("PRAGMA foreign_key_check").get() !== undefined)
    throw new Error("rows in it refer to rows that are gone");
  const tables = database
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
    .all()
    .map(({ name }) => name);
  for (const table of ["meta", "vms", "plugins", "leases"]) {
    if (!tables.includes(table)) throw new Error(`${path} is a database, and not one of Volant's`);
  }
  const rows = database
    .prepare("SELECT vms.*, (SELECT address FROM leases WHERE vm_id = vms.id) AS address FROM vms ORDER BY id")
    .all();
  const sequences = database.prepare("SELECT name, seq FROM sqlite_sequence").all();
  return {
    installation: String(one("SELECT value FROM meta WHERE key = 'installation'")["value"]),
    schemaVersion: Number(one("PRAGMA user_version")["user_version"]),
    vms: rows.map(vmRow),
    plugins: Number(one("SELECT count(*) AS count FROM plugins")["count"]),
    lastIds: Object.fromEntries(sequences.map(({ name, seq }) => [String(name), Number(seq)])),
    events: {
      last: tables.includes("events") ? Number(one("SELECT max(id) AS last FROM events")["last"] ?? 0) : 0,
      reserved: Number(one(`SELECT value FROM meta WHERE key = '${EVENTS_RESERVED}'`)["value"] ?? 0),
    },
  };
}

/**
 * What a database holds, after a look at every page of it. A log beside it, as a killed volantd leaves it, is written back into it.
 *
 * @throws VolantError `invalid`: no database of Volant's, or a damaged one
 */
export function inspectDatabase(path: string): DatabaseFacts {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path);
    return readFacts(database, path);
  } catch (error) {
    throw new VolantError("invalid", `${path} can't be used: ${(error as Error).message}`, { cause: error });
  } finally {
    database?.close();
  }
}

/** Changes what the plan raises, and leaves the database as one file that is on its disk when this returns. */
export function applyPlan(path: string, { raised, restart, lastIds, events }: RestorePlan): void {
  const database = new DatabaseSync(path);
  try {
    database.exec(
      "PRAGMA temp_store = MEMORY; PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
    );
    const raise = database.prepare(
      "UPDATE vms SET generation = ?, started_generation = ?, ended_generation = ? WHERE id = ?",
    );
    for (const { id, generation, startedGeneration, endedGeneration } of raised) {
      raise.run(generation, startedGeneration, endedGeneration, id);
    }
    const pend = database.prepare("UPDATE vms SET status = 'pending', reason = NULL WHERE name = ?");
    for (const name of restart) pend.run(name);
    const setLast = database.prepare("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?");
    const addLast = database.prepare(
      "INSERT INTO sqlite_sequence (name, seq) SELECT name, ? FROM sqlite_schema WHERE type = 'table' AND name = ?",
    );
    for (const [table, id] of Object.entries(lastIds)) {
      if (setLast.run(id, table).changes === 0) addLast.run(id, table);
    }
    const setMark = database.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)");
    for (const [key, value] of [
      [EVENTS_RESERVED, events.reserved],
      [EVENTS_LOST_AFTER, events.lostAfter],
      [EVENTS_LOST_BEFORE, events.reserved],
    ] as const) {
      setMark.run(key, String(value));
    }
    database.exec("COMMIT");
  } finally {
    database.close();
  }
}

/**
 * Keeps every volantd away from a database until it is released.
 *
 * @throws VolantError `in_use` while a volantd has it
 */
export function holdDatabase(path: string): DatabaseLock {
  const lock = tryLockDatabase(path);
  if (lock !== undefined) return lock;
  throw new VolantError("in_use", `volantd is running on the database ${path}`, {
    hint: "stop it first, its VMs go on: systemctl stop volantd",
  });
}
