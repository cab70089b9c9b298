/** `volar backup <file>`: its flags. What it does is loaded when the command runs. */
import type { Command } from "commander";
import { action } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import type { BackupFlags } from "./run.ts";

/** Adds the command's flags and what it does. */
export function registerBackup(command: Command, io: CliIo): void {
  command
    .description(
      "Writes everything that volantd remembers (VMs, their configurations, plugins, leases) into one file, while it runs. Files that VMs boot from are " +
        "not in it. It may hold secrets of VMs, and is its owner's alone.",
    )
    .argument("<file>", "where to write it")
    .option("--force", "replace a file that is there")
    .action(
      action(io, async (context, file: string, flags: BackupFlags) =>
        (await import("./run.ts")).runBackup(context, file, flags),
      ),
    );
}
