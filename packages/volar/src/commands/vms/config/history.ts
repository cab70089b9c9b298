import type { Command } from "commander";
import { action, type CommandContext } from "../../../context.ts";
import type { CliIo } from "../../../io.ts";
import { result, type Result } from "../../../output.ts";
import { wholeNumber } from "../../../values.ts";
import { historyTable, versionNumbers } from "../../../views/vm-config.ts";

/** Shows the versions of a VM's configuration, newest first. */
export async function configHistory(
  context: CommandContext,
  name: string,
  { limit }: { readonly limit?: number },
): Promise<Result> {
  return result(await (await context.client()).vms.configHistory(name, { limit }), historyTable, [], versionNumbers);
}

export function registerConfigHistory(config: Command, io: CliIo): void {
  config
    .command("history")
    .description("show its versions, newest first")
    .argument("<vm>")
    .option("--limit <count>", "at most so many", wholeNumber(1))
    .action(action(io, configHistory));
}
