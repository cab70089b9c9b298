import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { deploymentFields } from "../../views/deployments.ts";

/** Shows one deployment. */
export async function getDeployment(context: CommandContext, name: string): Promise<Result> {
  return result(await (await context.client()).deployments.get(name), deploymentFields);
}

export function registerGet(deployments: Command, io: CliIo): void {
  deployments
    .command("get")
    .description("show a deployment")
    .argument("<deployment>")
    .action(action(io, getDeployment));
}
