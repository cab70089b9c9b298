import { DatabaseSync } from "node:sqlite";

/** SQLITE_BUSY (sqlite.org/rescode.html). */
const SQLITE_BUSY = 5;

/** Held while this process lives; the kernel lets go of it when the process dies, however it dies. */
export interface DatabaseLock {
  release(): void;
}

/**
 * Makes this process the only one that writes to a database of volantd's: an empty database beside it is held locked, which no other process can do as
 * well. A lock on the database itself would keep readers such as a backup away.
 *
 * @returns undefined while another process holds it
 */
export function tryLockDatabase(path: string): DatabaseLock | undefined {
  const database = new DatabaseSync(`${path}.lock`);
  try {
    database.exec("PRAGMA busy_timeout = 0; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if ((error as { errcode?: unknown }).errcode === SQLITE_BUSY) return undefined;
    throw error;
  }
  return { release: () => database.close() };
}
