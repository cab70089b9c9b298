import { once } from "node:events";
import type { VmEvent } from "@volant/contract";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import type { CliIo } from "../../io.ts";
import { printable } from "../../table.ts";

interface EventFlags {
  readonly vm?: string;
}

function eventLine(event: VmEvent): string {
  const words = [event.status, event.reason, event.ip_address, event.message, event.line];
  const detail = words.filter((word) => word !== undefined && word !== "").join(" ");
  return printable(`${event.timestamp} ${event.type} ${event.name} ${detail}`.trimEnd());
}

/** Follows what happens to VMs until interrupted: a line each, with `--output json` a JSON document a line. */
export async function followEvents(context: CommandContext, { vm }: EventFlags): Promise<undefined> {
  const { io, output } = context;
  const client = await context.client();
  for await (const event of client.events()) {
    if (vm !== undefined && event.name !== vm) continue;
    const yaml = output === "yaml" ? `---\n${(await import("yaml")).stringify(event)}` : undefined;
    const text = yaml ?? `${output === "json" ? JSON.stringify(event) : eventLine(event)}\n`;
    if (!io.stdout.write(text)) await once(io.stdout, "drain");
  }
}

/** `volar events` */
export function registerEvents(command: Command, io: CliIo): void {
  command.option("--vm <name>", "only of this VM").action(action(io, followEvents));
}
