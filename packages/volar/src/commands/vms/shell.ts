import { VolantError } from "@volant/contract/errors";
import type { GuestProcess } from "@volant/sdk/node";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { runInGuest } from "./run-in-guest.ts";

/** The parts of a terminal that a shell needs. */
interface Terminal {
  setRawMode(raw: boolean): unknown;
}

/** What has a size in characters and says when that changes. */
interface Screen {
  readonly columns: number;
  readonly rows: number;
  on(event: "resize", listener: () => void): unknown;
  off(event: "resize", listener: () => void): unknown;
}

function terminalOf({ stdin, stdout }: CliIo): { readonly keys: Terminal; readonly screen: Screen } {
  if ("setRawMode" in stdin && "columns" in stdout) {
    return { keys: stdin as unknown as Terminal, screen: stdout as unknown as Screen };
  }
  throw new VolantError("invalid", "volar vms shell needs a terminal", {
    hint: "volar vms exec runs a program without one",
  });
}

/** Opens a shell in a guest on this terminal. */
export async function shellInVm(context: CommandContext, name: string, command: readonly string[]): Promise<undefined> {
  const { keys, screen } = terminalOf(context.io);
  const size = () => ({ cols: screen.columns, rows: screen.rows });
  const argv = command.length === 0 ? ["sh"] : command;
  const env = { TERM: context.io.env["TERM"] ?? "linux" };
  return runInGuest(context, name, { argv, env, tty: size() }, (process: GuestProcess) => {
    const onResize = () => process.resize(size());
    screen.on("resize", onResize);
    keys.setRawMode(true);
    return () => {
      screen.off("resize", onResize);
      keys.setRawMode(false);
    };
  });
}

export function registerShell(vms: Command, io: CliIo): void {
  vms
    .command("shell")
    .description("open a shell in a guest, on this terminal")
    .argument("<vm>")
    .argument("[command...]", "another program than sh, after --")
    .action(action(io, shellInVm));
}
