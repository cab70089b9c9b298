/** `volar doctor`: its flags. What it does is loaded when the command runs. */
import { DEFAULTS } from "@volant/contract/defaults";
import type { Command } from "commander";
import { action } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import type { DoctorFlags } from "./run.ts";

/** Adds the command's flags and what it does. */
export function registerDoctor(command: Command, io: CliIo): void {
  command
    .description(
      "Looks at this host and says what keeps VMs from running or from being reached, each with the command that puts it right. " +
        "Changes nothing. Exit code: 0 healthy, 1 warnings, 2 something is broken.",
    )
    .option("--work-dir <folder>", `where the set-up's record is (VOLANT_WORK_DIR, ${DEFAULTS.workDir})`)
    .option("--json", "the same as --output json")
    .action(action(io, async (context, flags: DoctorFlags) => (await import("./run.ts")).runDoctor(context, flags)));
}
