/** The v1 envelope: `{command, params}`, where a command is a tool by another name. */
import { VolantError, type McpCommand, type McpCommandResult } from "@volant/contract";
import type { CallRoute } from "./call.ts";
import { runTool } from "./run-tool.ts";
import { findTool, TOOLS, type Tool } from "./tools.ts";

/** v1's own list of what there is. */
const CAPABILITIES = "volant.system.get_capabilities";

/** The whole name of a tool's command. */
export function commandOf({ name }: Pick<Tool, "name">): string {
  return `volant.${name.replace("_", ".")}`;
}

/** v1's programs say `volant.` or `volar.` first; neither is needed. */
function toolNameOf(command: string): string {
  return command.replace(/^(?:volant|volar)\./, "").replaceAll(".", "_");
}

/** In v1 the runtime named what to run. */
function asToday(tool: Tool, params: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const { plugin, runtime, config } = params;
  if (tool.route !== "vms.create" || runtime === undefined || plugin !== undefined || config !== undefined)
    return params;
  return { ...params, plugin: runtime };
}

function capabilities(): unknown {
  return {
    capabilities: TOOLS.map((tool) => ({ name: commandOf(tool), description: tool.description, params: tool.input })),
  };
}

/**
 * Runs a command.
 *
 * @throws VolantError `invalid` for one that there is not, naming those that there are; and what the command's route refuses with
 */
export async function runCommand(
  { command, params = {} }: McpCommand,
  call: CallRoute,
  signal: AbortSignal,
): Promise<McpCommandResult> {
  const name = toolNameOf(command);
  if (name === toolNameOf(CAPABILITIES)) return { command: CAPABILITIES, result: capabilities() };
  const tool = findTool(name);
  if (tool === undefined) {
    const known = [...TOOLS.map(commandOf), CAPABILITIES].join(", ");
    throw new VolantError("invalid", `there is no command ${JSON.stringify(command)}`, { hint: `there are ${known}` });
  }
  const { body } = await runTool(tool, asToday(tool, params), call, signal);
  return { command: commandOf(tool), result: body ?? null };
}
