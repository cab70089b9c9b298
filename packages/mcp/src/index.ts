/** Light: nothing here loads the protocol's library, which `@volant/mcp/protocol` does. */
export type { CallRoute, RouteAnswer, RouteCall } from "./call.ts";
export { commandOf, runCommand } from "./envelope.ts";
export { TOOLS, type Tool, type ToolEffect } from "./tools.ts";
