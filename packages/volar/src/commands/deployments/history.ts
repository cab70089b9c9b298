import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { wholeNumber } from "../../values.ts";
import { deploymentHistoryTable } from "../../views/deployments.ts";
import { versionNumbers } from "../../views/vm-config.ts";

/** Shows the versions of a deployment's configuration, newest first. */
export async function deploymentHistory(
  context: CommandContext,
  name: string,
  { limit }: { readonly limit?: number },
): Promise<Result> {
  return result(
    await (await context.client()).deployments.history(name, { limit }),
    deploymentHistoryTable,
    [],
    versionNumbers,
  );
}

export function registerHistory(deployments: Command, io: CliIo): void {
  deployments
    .command("history")
    .description("show the versions of a deployment's configuration, newest first")
    .argument("<deployment>")
    .option("--limit <count>", "at most so many", wholeNumber(1))
    .action(action(io, deploymentHistory));
}
