import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import type { Result } from "../../output.ts";
import { deleteEach } from "../../delete-each.ts";
import { addPatienceOptions, type WaitFlags } from "./wait-flags.ts";

/** Deletes VMs; done when nothing of them is left. */
export function deleteVms(context: CommandContext, names: readonly string[], options: WaitFlags): Promise<Result> {
  return deleteEach(context, names, options, (client, name, patience) => client.vms.delete(name, patience));
}

export function registerDelete(vms: Command, io: CliIo): void {
  const command = vms
    .command("delete")
    .alias("rm")
    .description("delete VMs, and wait until nothing of them is left")
    .argument("<vms...>");
  addPatienceOptions(command, "gone").action(action(io, deleteVms));
}
