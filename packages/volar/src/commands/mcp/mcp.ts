import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";

/** Serves one client of the Model Context Protocol until it closes standard input. */
export async function serveMcp(context: CommandContext): Promise<undefined> {
  const { io } = context;
  const client = await context.client();
  // The protocol's library takes longer to load than all of volar, and no other command needs it.
  const [{ serveOverStdio }, { callerOf }] = await Promise.all([import("@volant/mcp/stdio"), import("./caller.ts")]);
  if (io.stderrIsTerminal) {
    io.stderr.write("volar: a client of the Model Context Protocol is to start this; Ctrl-D ends it\n");
  }
  await serveOverStdio({
    stdin: io.stdin,
    stdout: io.stdout,
    call: callerOf(client),
    onBug: (error) => void io.stderr.write(`volar: a tool failed: ${String(error)}\n`),
  });
}

export function registerMcp(mcp: Command, io: CliIo): void {
  mcp
    .description(
      "serve the Model Context Protocol on standard input and output: tools for VMs, deployments and plugins of the volantd at --api",
    )
    .action(action(io, serveMcp));
}
