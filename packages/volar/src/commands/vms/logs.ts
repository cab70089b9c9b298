import { once } from "node:events";
import type { VmLogLine } from "@volant/contract";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { renderItem } from "../../output.ts";
import { printable } from "../../table.ts";
import { wholeNumber } from "../../values.ts";

interface LogFlags {
  readonly follow?: boolean;
  readonly tail?: number;
  readonly timestamps?: boolean;
}

/** A line for people. What comes from the workload's own streams stands as it was printed, remarks say whose they are. */
function logLine({ stream, line, timestamp }: VmLogLine, timestamps: boolean): string {
  const said = stream === "agent" || stream === "volantd" ? `[${stream}] ${line}` : line;
  // Tabs are text.
  const shown = said.split("\t").map(printable).join("\t");
  return timestamps ? `${timestamp} ${shown}` : shown;
}

/** Prints what a VM's workload has printed; with `--output json` a JSON document a line. */
export async function showLogs(
  context: CommandContext,
  name: string,
  { follow = false, tail, timestamps = false }: LogFlags,
): Promise<undefined> {
  const { io, output } = context;
  const client = await context.client();
  for await (const line of client.vms.logs(name, { follow, tail })) {
    const text = await renderItem(line, output, () => logLine(line, timestamps));
    if (!io.stdout.write(text)) await once(io.stdout, "drain");
  }
}

export function registerLogs(vms: Command, io: CliIo): void {
  vms
    .command("logs")
    .description("show what a VM's workload has printed, also when it is stopped")
    .argument("<vm>")
    .option("-f, --follow", "go on with new lines, through restarts, until interrupted")
    .option("--tail <count>", "only so many of the last lines", wholeNumber(0))
    .option("-t, --timestamps", "say when each line was printed")
    .action(action(io, showLogs));
}
