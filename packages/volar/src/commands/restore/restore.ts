/** `volar restore <file>`: its flags. What it does is loaded when the command runs. */
import type { Command } from "commander";
import { action } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import type { RestoreFlags } from "./run.ts";

/** Adds the command's flags and what it does. */
export function registerRestore(command: Command, io: CliIo): void {
  command
    .description(
      "Puts a backup in the place of volantd's database on this host. volantd must be stopped; VMs go on meanwhile. The database that was there is kept beside it. " +
        "Where VMs that are there now would be ended, restarted or forgotten, it says which, and does nothing without --force.",
    )
    .argument("<file>", "what volar backup wrote")
    .option("--force", "also where VMs that are there now would be ended, restarted or forgotten")
    .option("--dry-run", "say what it would come to, and change nothing")
    .option("--db-path <file>", "volantd's database (VOLANT_DB_PATH, ~/.volant/state.db)")
    .action(
      action(io, async (context, file: string, flags: RestoreFlags) =>
        (await import("./run.ts")).runRestore(context, file, flags),
      ),
    );
}
