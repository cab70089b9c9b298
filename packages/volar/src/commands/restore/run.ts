/** What `volar restore` does: reads the request, and shows what it came to. */
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { VolantError } from "@volant/contract/errors";
import { findRunningVms, restoreDatabase } from "@volant/host";
import type { CommandContext } from "../../context.ts";
import { writeFailure } from "../../file-failure.ts";
import { type Result, result } from "../../output.ts";

export interface RestoreFlags {
  readonly force?: boolean;
  readonly dryRun?: boolean;
  readonly dbPath?: string;
}

export async function runRestore({ io }: CommandContext, file: string, flags: RestoreFlags): Promise<Result> {
  if (flags.dbPath === "") throw new VolantError("invalid", "--db-path needs a path, and it is empty");
  const databasePath = resolve(
    flags.dbPath ?? (io.env["VOLANT_DB_PATH"]?.trim() || join(homedir(), ".volant/state.db")),
  );
  const { force = false, dryRun = false } = flags;
  const request = { file: resolve(file), databasePath, force, dryRun, findRunning: findRunningVms };
  const { backup, plan, kept, unreadable } = await restoreDatabase(request).catch((error: unknown) => {
    throw error instanceof VolantError ? error : writeFailure(databasePath, error);
  });
  const data = {
    restored: !dryRun,
    database: databasePath,
    kept: kept ?? null,
    unreadable: unreadable ?? null,
    installation: backup.installation,
    vms: backup.vms.length,
    plugins: backup.plugins,
    go_on: plan.goOn,
    restart: plan.restart,
    stop: plan.stop,
    ended: plan.ended,
    remove: plan.remove,
    forget: plan.forget,
    abandon: plan.abandon,
  };
  return result(data, restoreText, [], ({ database }) => [database]);
}

interface Shown {
  readonly restored: boolean;
  readonly database: string;
  readonly kept: string | null;
  readonly unreadable: string | null;
  readonly vms: number;
  readonly plugins: number;
  readonly go_on: readonly string[];
  readonly restart: readonly string[];
  readonly stop: readonly string[];
  readonly ended: readonly string[];
  readonly remove: readonly string[];
  readonly forget: readonly string[];
  readonly abandon: readonly string[];
}

function restoreText(shown: Shown): string {
  const names = (what: string, list: readonly string[]): string[] =>
    list.length === 0 ? [] : [`${what}: ${list.join(", ")}`];
  const { vms, plugins, database, kept, unreadable } = shown;
  const lines = [
    `${shown.restored ? "restored" : "would restore"} ${database}: ${vms} VMs, ${plugins} plugins`,
    ...(unreadable === null ? [] : [`the database that was there could not be read: ${unreadable}`]),
    ...(kept === null ? [] : [`the database that was there is kept: ${kept}`]),
    ...names("run and go on", shown.go_on),
    ...names("run, and are restarted with the backup's settings", shown.restart),
    ...names("run, and are stopped", shown.stop),
    ...names("do not run, and have ended", shown.ended),
    ...names("are not in the backup, and are ended and removed", shown.remove),
    ...names("are not in the backup, and are forgotten", shown.forget),
    ...names("are another installation's, and are left running", shown.abandon),
    ...(shown.restored ? ["start volantd now: systemctl start volantd"] : []),
  ];
  return `${lines.join("\n")}\n`;
}
