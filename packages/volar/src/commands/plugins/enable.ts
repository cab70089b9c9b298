import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";

/** Enables a plugin. */
export async function enablePlugin(context: CommandContext, name: string): Promise<Result> {
  const plugin = await (await context.client()).plugins.setEnabled(name, true);
  return result(plugin, () => `plugin ${plugin.name} enabled\n`);
}

export function registerEnable(plugins: Command, io: CliIo): void {
  plugins.command("enable").description("enable a plugin").argument("<plugin>").action(action(io, enablePlugin));
}
