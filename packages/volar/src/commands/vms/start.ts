import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { vmFields } from "../../views/vms.ts";
import { addWaitOptions, waitLimitMs, type WaitFlags } from "./wait-flags.ts";
import { waitWithProgress } from "./wait-progress.ts";

/** Starts a VM and, if asked to, waits until it runs. */
export async function startVm(context: CommandContext, name: string, options: WaitFlags): Promise<Result> {
  const client = await context.client();
  let vm = await client.vms.start(name);
  if (options.wait === true) {
    vm = await waitWithProgress(context, name, "running", waitLimitMs(options));
  }
  return result(vm, vmFields);
}

export function registerStart(vms: Command, io: CliIo): void {
  const command = vms.command("start").description("start a VM").argument("<vm>");
  addWaitOptions(command).action(action(io, startVm));
}
