import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import type { Result } from "../../output.ts";
import { deleteEach } from "../../delete-each.ts";
import { addPatienceOptions, type WaitFlags } from "../vms/wait-flags.ts";

/** Deletes deployments with their replicas; done when nothing of them is left. */
export function deleteDeployments(
  context: CommandContext,
  names: readonly string[],
  options: WaitFlags,
): Promise<Result> {
  return deleteEach(context, names, options, (client, name, patience) => client.deployments.delete(name, patience));
}

export function registerDelete(deployments: Command, io: CliIo): void {
  const command = deployments
    .command("delete")
    .alias("rm")
    .description("delete deployments with all their replicas, and wait until nothing of them is left")
    .argument("<deployments...>");
  addPatienceOptions(command, "gone").action(action(io, deleteDeployments));
}
