import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { pluginTable } from "../../views/plugins.ts";

/** Lists plugins with version and state. */
export async function listPlugins(context: CommandContext): Promise<Result> {
  return result((await (await context.client()).system.summary()).plugins, pluginTable);
}

export function registerList(plugins: Command, io: CliIo): void {
  plugins.command("list").alias("ls").description("list plugins").action(action(io, listPlugins));
}
