import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { forEachName } from "../../several.ts";

/** Removes plugins that no VM needs. */
export async function removePlugins(context: CommandContext, names: readonly string[]): Promise<Result> {
  const client = await context.client();
  const { done, failures } = await forEachName(names, (name) => client.plugins.remove(name));
  return result(
    { removed: done },
    ({ removed }) => removed.map((name) => `plugin ${name} removed\n`).join(""),
    failures,
    ({ removed }) => removed,
  );
}

export function registerRemove(plugins: Command, io: CliIo): void {
  plugins
    .command("remove")
    .alias("rm")
    .description("remove plugins that no VM needs")
    .argument("<plugins...>")
    .action(action(io, removePlugins));
}
