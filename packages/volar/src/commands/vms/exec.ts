import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { keyValue } from "../../values.ts";
import { runInGuest } from "./run-in-guest.ts";

interface ExecFlags {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/** Runs a program in a guest, and ends with its exit code. */
export async function execInVm(
  context: CommandContext,
  name: string,
  command: readonly string[],
  { env, cwd }: ExecFlags,
): Promise<undefined> {
  return runInGuest(context, name, { argv: command, env, cwd });
}

export function registerExec(vms: Command, io: CliIo): void {
  vms
    .command("exec")
    .description("run a program in a guest, with volar's standard input and output; its exit code is volar's")
    .argument("<vm>")
    .argument("<command...>", "the program and its arguments, after --")
    .option("--env <key=value>", "environment variable, may be repeated", keyValue)
    .option("--cwd <directory>", "where in the guest (default: /)")
    .action(action(io, execInVm));
}
