/** `volar top`: its flags. What it does is loaded when the command runs. */
import { Option, type Command } from "commander";
import { action } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { durationMs } from "../../values.ts";
import { SORTS } from "./rates.ts";
import type { TopFlags } from "./run.ts";

const DEFAULT_INTERVAL_MS = 1000;

/** Adds what `volar top` takes and does. */
export function registerTop(command: Command, io: CliIo): void {
  command
    .description(
      "Shows what VMs use now: processor time and memory of their hypervisors, and what goes over their taps, as the guests see it. Ends with q. " +
        "Where standard output is no terminal, or with --output json or yaml, one document follows the other.",
    )
    .argument("[vms...]", "these only")
    .option("--once", "show what was used in one interval, and end")
    .addOption(
      new Option("--interval <time>", "how long between two looks")
        .argParser(durationMs)
        .default(DEFAULT_INTERVAL_MS, "1s"),
    )
    .addOption(new Option("--sort <by>", "what comes first").choices(SORTS).default("cpu"))
    .action(
      action(io, async (context, names: readonly string[], flags: TopFlags) =>
        (await import("./run.ts")).runTop(context, names, flags),
      ),
    );
}
