import type { Command } from "commander";
import { action, type CommandContext } from "../../../context.ts";
import type { CliIo } from "../../../io.ts";
import { result, type Result } from "../../../output.ts";
import { configText } from "../../../views/vm-config.ts";

/** Shows a VM's configuration as last written. */
export async function getConfig(context: CommandContext, name: string): Promise<Result> {
  return result(await (await context.client()).vms.config(name), configText, [], () => [name]);
}

export function registerConfigGet(config: Command, io: CliIo): void {
  config.command("get").description("show it").argument("<vm>").action(action(io, getConfig));
}
