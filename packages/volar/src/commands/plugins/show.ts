import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { pluginFields } from "../../views/plugins.ts";

/** Shows one plugin. */
export async function showPlugin(context: CommandContext, name: string): Promise<Result> {
  return result(await (await context.client()).plugins.get(name), pluginFields);
}

export function registerShow(plugins: Command, io: CliIo): void {
  plugins.command("show").description("show a plugin").argument("<plugin>").action(action(io, showPlugin));
}
