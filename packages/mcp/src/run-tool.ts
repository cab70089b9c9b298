import { checkSchema } from "@volant/contract";
import type { CallRoute, RouteAnswer } from "./call.ts";
import { routeCall } from "./tool-input.ts";
import type { Tool } from "./tools.ts";

/**
 * Runs a tool.
 *
 * @param given its arguments, as they came
 * @throws VolantError `invalid` when they do not fit, and what the route refuses with
 */
export async function runTool(
  tool: Tool,
  given: Readonly<Record<string, unknown>>,
  call: CallRoute,
  signal: AbortSignal,
): Promise<RouteAnswer> {
  const checked = checkSchema(tool.input, given, `arguments of ${tool.name}`) as Readonly<Record<string, unknown>>;
  return call(tool.route, routeCall(tool.route, { ...tool.defaults, ...checked }), signal);
}
