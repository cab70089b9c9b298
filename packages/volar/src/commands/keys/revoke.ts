import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { result, type Result } from "../../output.ts";
import { forEachName } from "../../several.ts";

/** Revokes keys: they open nothing from now on. */
export async function revokeKeys(context: CommandContext, names: readonly string[]): Promise<Result> {
  const client = await context.client();
  const { done, failures } = await forEachName(names, (name) => client.keys.revoke(name));
  return result({ revoked: done }, ({ revoked }) => revoked.map((name) => `${name} revoked\n`).join(""), failures);
}

export function registerRevoke(keys: Command, io: CliIo): void {
  keys
    .command("revoke")
    .alias("rm")
    .description("revoke API keys: they open nothing from now on, and what goes on with them ends")
    .argument("<names...>")
    .action(action(io, revokeKeys));
}
