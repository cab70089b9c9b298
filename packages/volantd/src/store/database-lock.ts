import { DatabaseSync } from "node:sqlite";
import { VolantError } from "@volant/contract";

/** SQLITE_BUSY (sqlite.org/rescode.html). */
const SQLITE_BUSY = 5;

/** Held while this process lives; the kernel lets go of it when the process dies, however it dies. */
export interface DatabaseLock {
  release(): void;
}

/**
 * Makes this process the only volantd on a database: an empty database beside it is held locked, which no other process can do as well.
 * A lock on the database itself would keep readers such as a backup away.
 *
 * @throws VolantError `in_use` when another process holds it
 */
export function lockDatabase(path: string): DatabaseLock {
  const database = new DatabaseSync(`${path}.lock`);
  try {
    database.exec("PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if ((error as { errcode?: unknown }).errcode !== SQLITE_BUSY) throw error;
    throw new VolantError("in_use", `the database ${path} is in use by another volantd`, {
      hint: "stop that one, or give this one a database of its own with VOLANT_DB_PATH",
    });
  }
  return { release: () => database.close() };
}
