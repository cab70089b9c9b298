/** A copy of the database as a stream: consistent, complete, and of one file that needs no log beside it. */
import { closeSync, openSync, readdirSync, rmSync } from "node:fs";
import { open, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { backup, DatabaseSync } from "node:sqlite";
import type { StoreBackup } from "./store.ts";

/** Pages that are copied without a pause for other work: 4 MiB. */
const PAGES_AT_ONCE = 1024;

/**
 * Result codes of a copy that met a write of this process's own: SQLITE_BUSY and SQLITE_LOCKED (sqlite.org/rescode.html); and SQLITE_OK, which is what Node (24.21)
 * finds when it asks the connection why, since that has forgotten it by then.
 */
const MET_A_WRITE: readonly unknown[] = [0, 5, 6];
const ATTEMPTS = 20;
const PAUSE_MS = 25;

/** Copies all pages; where writes get in the way, anew from the first one. */
async function copyPages(database: DatabaseSync, path: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await backup(database, path, { rate: PAGES_AT_ONCE });
      return;
    } catch (error) {
      const isTransient = MET_A_WRITE.includes((error as { readonly errcode?: unknown }).errcode);
      if (!isTransient || attempt === ATTEMPTS) throw error;
      await delay(PAUSE_MS * attempt);
    }
  }
}

/** A hidden name that no user gives to a file of his own. */
function namePrefix(databasePath: string): string {
  return `.${basename(databasePath)}.volant-backup-`;
}

/** Removes what backups left that were being made when volantd was killed. */
export function removeUnfinishedBackups(databasePath: string): void {
  const folder = dirname(databasePath);
  const prefix = namePrefix(databasePath);
  for (const name of readdirSync(folder)) if (name.startsWith(prefix)) rmSync(join(folder, name));
}

/**
 * Copies the database; what is written meanwhile through the same connection is in the copy. Its file has no name any more when this resolves, so
 * that it goes with the stream.
 *
 * @param id tells this backup's file from others
 */
export async function backupStream(database: DatabaseSync, databasePath: string, id: string): Promise<StoreBackup> {
  const path = join(dirname(databasePath), namePrefix(databasePath) + id);
  try {
    // It holds what the database holds: its owner's alone.
    closeSync(openSync(path, "wx", 0o600));
    await copyPages(database, path);
    const copy = new DatabaseSync(path);
    try {
      copy.exec("PRAGMA journal_mode = DELETE");
    } finally {
      copy.close();
    }
    const file = await open(path, "r");
    const { size } = await file.stat();
    return { sizeBytes: size, content: file.createReadStream() };
  } finally {
    for (const suffix of ["", "-wal", "-shm", "-journal"]) await rm(path + suffix, { force: true });
  }
}
