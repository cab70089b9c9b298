import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { deploymentFields } from "../../views/deployments.ts";
import type { WaitFlags } from "../vms/wait-flags.ts";
import { addWaitOptions, shown } from "./wait-progress.ts";

/** Holds a roll-out where it is. */
export async function pauseDeployment(context: CommandContext, name: string): Promise<Result> {
  return result(await (await context.client()).deployments.pause(name), deploymentFields);
}

/** Lets a roll-out go on, after a pause or a failure. */
export async function resumeDeployment(context: CommandContext, name: string, options: WaitFlags): Promise<Result> {
  return shown(context, await (await context.client()).deployments.resume(name), options);
}

export function registerPause(deployments: Command, io: CliIo): void {
  deployments
    .command("pause")
    .description("hold a roll-out where it is; replicas that end are started again all the same")
    .argument("<deployment>")
    .action(action(io, pauseDeployment));
}

export function registerResume(deployments: Command, io: CliIo): void {
  const command = deployments
    .command("resume")
    .description("let a roll-out go on, after a pause or after it has failed")
    .argument("<deployment>");
  addWaitOptions(command).action(action(io, resumeDeployment));
}
