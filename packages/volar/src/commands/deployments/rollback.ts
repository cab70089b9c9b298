import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import type { Result } from "../../output.ts";
import { wholeNumber } from "../../values.ts";
import type { WaitFlags } from "../vms/wait-flags.ts";
import { addWaitOptions, shown } from "./wait-progress.ts";

/** Rolls a version of the history out again. */
export async function rollbackDeployment(
  context: CommandContext,
  name: string,
  version: number,
  options: WaitFlags,
): Promise<Result> {
  return shown(context, await (await context.client()).deployments.rollback(name, version), options);
}

export function registerRollback(deployments: Command, io: CliIo): void {
  const command = deployments
    .command("rollback")
    .description("roll a version of the history out again: volar deployments history <deployment>")
    .argument("<deployment>")
    .argument("<version>", "its number", wholeNumber(1));
  addWaitOptions(command).action(action(io, rollbackDeployment));
}
