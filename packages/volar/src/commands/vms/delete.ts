import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { forEachName } from "../../several.ts";

/** Deletes VMs; done when nothing of them is left. */
export async function deleteVms(context: CommandContext, names: readonly string[]): Promise<Result> {
  const client = await context.client();
  context.progress.show(`deleting ${names.join(", ")}`);
  const { done, failures } = await forEachName(names, (name) => client.vms.delete(name));
  return result({ deleted: done }, ({ deleted }) => deleted.map((name) => `${name} deleted\n`).join(""), failures);
}

export function registerDelete(vms: Command, io: CliIo): void {
  vms
    .command("delete")
    .alias("rm")
    .description("delete VMs, and wait until nothing of them is left")
    .argument("<names...>")
    .action(action(io, deleteVms));
}
