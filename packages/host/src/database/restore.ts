/** Puts a backup in the place of volantd's database, while volantd is stopped. */
import { copyFile, link, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { VolantError } from "@volant/contract";
import { applyPlan, holdDatabase, inspectDatabase } from "./database-file.ts";
import { type DatabaseFacts, isDestructive, planRestore, type RestorePlan, type RunningVm } from "./plan-restore.ts";

export interface RestoreRequest {
  /** The backup. */
  readonly file: string;
  readonly databasePath: string;
  /** Go on where it ends, forgets or leaves alone VMs that are there now. */
  readonly force: boolean;
  /** Say what it would come to, and change nothing. */
  readonly dryRun: boolean;
  readonly findRunning: () => Promise<readonly RunningVm[]>;
}

export interface Restored {
  readonly backup: DatabaseFacts;
  readonly plan: RestorePlan;
  /** Where the database that was there before is now; undefined where there was none. */
  readonly kept: string | undefined;
  /** Why the database that was there before could not be read. */
  readonly unreadable: string | undefined;
}

const BESIDE = ["-wal", "-shm"] as const;

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

async function sync(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** A name for what is kept that nothing has yet. */
async function nameForKept(path: string): Promise<string> {
  for (let count = 1; ; count += 1) {
    const name = `${path}.before-restore${count === 1 ? "" : `-${count}`}`;
    if (!(await exists(name))) return name;
  }
}

/** Files of this size are copied in no time; where a link can be had, nothing is copied. */
async function keep(path: string, kept: string): Promise<void> {
  for (const suffix of ["", ...BESIDE]) {
    if (!(await exists(path + suffix))) continue;
    await link(path + suffix, kept + suffix).catch(() => copyFile(path + suffix, kept + suffix));
    await sync(kept + suffix);
  }
}

/**
 * Each step leaves either the old database whole in its place or the new one, wherever it is cut off; run again, it does the same again.
 *
 * @throws VolantError `in_use` while volantd runs, `invalid` for a file that is no whole backup, `not_supported` for one of a newer volantd,
 * `wrong_state` where VMs would be ended, forgotten or left alone and `force` does not say so
 */
export async function restoreDatabase(request: RestoreRequest): Promise<Restored> {
  const { file, databasePath, dryRun } = request;
  if (!(await exists(file))) throw new VolantError("not_found", `there is no file ${file}`);
  await mkdir(dirname(databasePath), { recursive: true, mode: 0o700 });
  const lock = holdDatabase(databasePath);
  const fresh = join(dirname(databasePath), `.${basename(databasePath)}.volant-restoring`);
  try {
    await rm(fresh, { force: true });
    // The copy is what is looked at, so that nothing is written beside the backup, and what was checked is what is put in place.
    const copy = await open(fresh, "wx", 0o600);
    await copy.close();
    await copyFile(file, fresh);
    const backup = inspectCopy(fresh, file);
    const { now, unreadable } = await inspectNow(databasePath);
    checkVersions(backup, now, file);
    const plan = planRestore(backup, now, await request.findRunning());
    if (dryRun) return { backup, plan, kept: undefined, unreadable };
    if (isDestructive(plan) && !request.force) throw refusal(plan);
    applyPlan(fresh, plan);
    await sync(fresh);
    const kept = (await exists(databasePath)) ? await nameForKept(databasePath) : undefined;
    if (kept !== undefined) await keep(databasePath, kept);
    // A log of the old database must never lie beside the new one.
    for (const suffix of BESIDE) await rm(databasePath + suffix, { force: true });
    await rename(fresh, databasePath);
    await sync(dirname(databasePath));
    return { backup, plan, kept, unreadable };
  } finally {
    for (const suffix of ["", "-journal", ...BESIDE]) await rm(fresh + suffix, { force: true });
    lock.release();
  }
}

function inspectCopy(copy: string, file: string): DatabaseFacts {
  try {
    return inspectDatabase(copy);
  } catch (error) {
    if (!(error instanceof VolantError)) throw error;
    throw new VolantError("invalid", error.message.replaceAll(copy, file), {
      hint: "a backup is made with: volar backup <file>",
      cause: error,
    });
  }
}

async function inspectNow(
  path: string,
): Promise<{ readonly now: DatabaseFacts | undefined; readonly unreadable: string | undefined }> {
  if (!(await exists(path))) return { now: undefined, unreadable: undefined };
  try {
    return { now: inspectDatabase(path), unreadable: undefined };
  } catch (error) {
    if (!(error instanceof VolantError)) throw error;
    // A damaged one is a reason to restore, and not one against it.
    return { now: undefined, unreadable: error.message };
  }
}

/** volantd migrates its database when it starts: the one that is there has the newest schema that it knows. */
function checkVersions(backup: DatabaseFacts, now: DatabaseFacts | undefined, file: string): void {
  if (now === undefined || backup.schemaVersion <= now.schemaVersion) return;
  throw new VolantError(
    "not_supported",
    `${file} has schema version ${backup.schemaVersion}, and the database of this host ${now.schemaVersion}: a newer volantd made it`,
    { hint: "install that volantd, start it once, and restore then" },
  );
}

function refusal({ restart, stop, remove, forget, abandon }: RestorePlan): VolantError {
  const part = (names: readonly string[], what: string): string[] =>
    names.length === 0 ? [] : [`${what} ${names.slice(0, 10).join(", ")}${names.length > 10 ? " and others" : ""}`];
  const parts = [
    ...part(remove, "end and remove, as they are not in the backup,"),
    ...part(forget, "forget, as they are not in the backup,"),
    ...part(restart, "restart with the settings of the backup"),
    ...part(stop, "stop"),
    ...part(abandon, "leave running with nobody to look after them, as the backup is another installation's,"),
  ];
  return new VolantError("wrong_state", `this restore would ${parts.join("; ")}`, {
    hint: "say --force if that is meant, and --dry-run to see all of it",
  });
}
