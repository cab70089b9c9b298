import { SCOPES, type Scope } from "@volant/contract/scopes";
import { Option, type Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";

/** Makes a key and prints it: alone on its line, so that it can be put into a variable. */
export async function createKey(
  context: CommandContext,
  name: string,
  { scope }: { readonly scope: Scope },
): Promise<Result> {
  const made = await (await context.client()).keys.create({ name, scope });
  return result(made, ({ key }) => `${key}\n`);
}

export function registerCreate(keys: Command, io: CliIo): void {
  keys
    .command("create")
    .description("make an API key and print it: it is shown now, and never again")
    .argument("<name>")
    .addOption(new Option("--scope <scope>", "what it may do").choices(SCOPES).makeOptionMandatory())
    .action(action(io, createKey));
}
