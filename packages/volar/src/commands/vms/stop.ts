import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { vmFields } from "../../views/vms.ts";
import { addPatienceOptions, patienceMs, type WaitFlags } from "./wait-flags.ts";

/** Stops a VM; done when it is stopped. */
export async function stopVm(context: CommandContext, name: string, options: WaitFlags): Promise<Result> {
  const client = await context.client();
  context.progress.show(`stopping ${name}`);
  return result(await client.vms.stop(name, { waitMs: patienceMs(options) }), vmFields);
}

export function registerStop(vms: Command, io: CliIo): void {
  const command = vms.command("stop").description("stop a VM, and wait until it is stopped").argument("<vm>");
  addPatienceOptions(command, "stopped").action(action(io, stopVm));
}
