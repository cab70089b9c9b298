/** Routes that were made for tools: each is one question with one bounded answer. A part of the route table. */
import { Type } from "typebox";
import { ConsoleTail, ConsoleTailQuery } from "./console-tail.ts";
import { ENDPOINTS } from "./endpoints.ts";
import type { ErrorCode } from "./errors.ts";
import { RunRequest, RunResult } from "./guest-run.ts";
import { McpCommand, McpCommandResult } from "./mcp.ts";
import { VmName } from "./names.ts";

const closed = { additionalProperties: false } as const;
const vmParams = Type.Object({ name: VmName }, closed);

/** What the commands' routes answer with. */
const commandErrors: readonly ErrorCode[] = [
  "not_found",
  "exists",
  "disabled",
  "key_reused",
  "wrong_state",
  "in_use",
  "rate_limited",
  "not_supported",
  "guest_unreachable",
  "exhausted",
];

export const TOOL_ROUTES = {
  "vms.run": {
    ...ENDPOINTS["vms.run"],
    tag: "vms",
    summary: "Run a program in a guest to its end, and answer with what it printed",
    params: vmParams,
    body: RunRequest,
    status: 200,
    response: RunResult,
    errors: ["not_found", "wrong_state", "guest_unreachable", "exhausted"],
  },
  "vms.console.tail": {
    ...ENDPOINTS["vms.console.tail"],
    tag: "vms",
    summary: "The last lines of a VM's serial console, also when it is stopped",
    params: vmParams,
    query: ConsoleTailQuery,
    status: 200,
    response: ConsoleTail,
    errors: ["not_found"],
  },
  "mcp.command": {
    ...ENDPOINTS["mcp.command"],
    tag: "mcp",
    summary:
      "A command of the v1 envelope: it asks another route, with this request's key. /mcp is the protocol itself",
    body: McpCommand,
    status: 200,
    response: McpCommandResult,
    errors: commandErrors,
  },
} as const;
