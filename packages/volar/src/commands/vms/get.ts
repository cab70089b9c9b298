import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { vmFields } from "../../views/vms.ts";

/** Shows one VM. */
export async function getVm(context: CommandContext, name: string): Promise<Result> {
  return result(await (await context.client()).vms.get(name), vmFields);
}

export function registerGet(vms: Command, io: CliIo): void {
  vms.command("get").description("show a VM").argument("<vm>").action(action(io, getVm));
}
