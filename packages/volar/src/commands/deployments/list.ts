import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { deploymentTable } from "../../views/deployments.ts";

/** Lists deployments. */
export async function listDeployments(context: CommandContext): Promise<Result> {
  return result(await (await context.client()).deployments.list(), deploymentTable);
}

export function registerList(deployments: Command, io: CliIo): void {
  deployments.command("list").alias("ls").description("list deployments").action(action(io, listDeployments));
}
