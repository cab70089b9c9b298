import type { ApiKey } from "@volant/contract";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { formatTable } from "../../table.ts";

function keyTable(keys: readonly ApiKey[]): string {
  return formatTable([
    ["NAME", "SCOPE", "CREATED", "LAST USED"],
    ...keys.map((key) => [key.name, key.scope, key.created_at, key.last_used_at ?? "never"]),
  ]);
}

/** Lists API keys, without the keys themselves. */
export async function listKeys(context: CommandContext): Promise<Result> {
  return result(await (await context.client()).keys.list(), keyTable);
}

export function registerList(keys: Command, io: CliIo): void {
  keys.command("list").alias("ls").description("list API keys").action(action(io, listKeys));
}
