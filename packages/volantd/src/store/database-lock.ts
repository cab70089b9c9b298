import { VolantError } from "@volant/contract";
import { tryLockDatabase, type DatabaseLock } from "@volant/host";

/**
 * Makes this process the only volantd on a database.
 *
 * @throws VolantError `in_use` when another process holds it
 */
export function lockDatabase(path: string): DatabaseLock {
  const lock = tryLockDatabase(path);
  if (lock !== undefined) return lock;
  throw new VolantError("in_use", `the database ${path} is in use by another volantd`, {
    hint: "stop that one, or give this one a database of its own with VOLANT_DB_PATH",
  });
}
