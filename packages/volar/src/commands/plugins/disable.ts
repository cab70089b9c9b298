import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";

/** Disables a plugin. */
export async function disablePlugin(context: CommandContext, name: string): Promise<Result> {
  const plugin = await (await context.client()).plugins.setEnabled(name, false);
  return result(plugin, () => `plugin ${plugin.name} disabled\n`);
}

export function registerDisable(plugins: Command, io: CliIo): void {
  plugins.command("disable").description("disable a plugin").argument("<plugin>").action(action(io, disablePlugin));
}
