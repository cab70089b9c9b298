/** The tools as a Model Context Protocol server. Whoever imports this loads the protocol's library: it is to be imported when it is used. */
import { VOLANT_VERSION } from "@volant/contract/defaults";
import {
  createMcpHandler,
  McpServer,
  type CallToolResult,
  type StandardSchemaWithJSON,
} from "@modelcontextprotocol/server";
import type { CallRoute } from "./call.ts";
import { runTool } from "./run-tool.ts";
import { answerText, refusalOf } from "./tool-answer.ts";
import { TOOLS, type Tool, type ToolEffect } from "./tools.ts";

const INSTRUCTIONS =
  "Volant runs microVMs on one host. VMs and deployments are made from plugins (plugins_list). Making and starting is answered before it has happened unless wait says otherwise. A failed call gives one sentence, a code and often a hint at what to do.";

const HINTS = {
  reads: { readOnlyHint: true, destructiveHint: false },
  adds: { readOnlyHint: false, destructiveHint: false },
  changes: { readOnlyHint: false, destructiveHint: false },
  destroys: { readOnlyHint: false, destructiveHint: true },
} as const satisfies Record<ToolEffect, object>;

type Arguments = Readonly<Record<string, unknown>>;

/** The schema as the library wants it. It lets everything pass: {@link runTool} checks, and says what is wrong in the API's words. */
function inputSchema({ input }: Tool): StandardSchemaWithJSON<Arguments, Arguments> {
  const json = JSON.parse(JSON.stringify(input)) as Record<string, unknown>;
  return {
    "~standard": {
      version: 1,
      vendor: "volant",
      validate: (value) => ({ value: value as Arguments }),
      jsonSchema: { input: () => json, output: () => json },
    },
  };
}

const schemas = new Map(TOOLS.map((tool) => [tool.name, inputSchema(tool)]));

function asResult(text: string, object: Arguments, isError: boolean): CallToolResult {
  return { content: [{ type: "text", text }], structuredContent: { ...object }, ...(isError ? { isError } : {}) };
}

export interface ProtocolOptions {
  readonly call: CallRoute;
  /** Called with what is a bug; the caller of the tool is told no details. */
  readonly onBug: (error: unknown) => void;
}

async function answer(
  tool: Tool,
  given: Arguments,
  signal: AbortSignal,
  { call, onBug }: ProtocolOptions,
): Promise<CallToolResult> {
  try {
    const { text, object } = answerText(tool, await runTool(tool, given, call, signal));
    return asResult(text, object, false);
  } catch (error) {
    signal.throwIfAborted();
    const refusal = refusalOf(error);
    if (refusal === undefined) onBug(error);
    const body = refusal ?? { error: "Volant has a bug that this call ran into", code: "internal" };
    return asResult(JSON.stringify(body), body, true);
  }
}

/** A server with all tools, for one connection or one request. */
export function createProtocolServer(options: ProtocolOptions): McpServer {
  const server = new McpServer(
    { name: "volant", title: "Volant", version: VOLANT_VERSION },
    { capabilities: { tools: { listChanged: false } }, instructions: INSTRUCTIONS },
  );
  for (const tool of TOOLS) {
    const { name, title, description, effect, isIdempotent, isOpen } = tool;
    const annotations = { title, ...HINTS[effect], idempotentHint: isIdempotent, openWorldHint: isOpen };
    server.registerTool(
      name,
      { title, description, inputSchema: schemas.get(name) ?? inputSchema(tool), annotations },
      (given, { mcpReq }) => answer(tool, given, mcpReq.signal, options),
    );
  }
  return server;
}

/** One request of Streamable HTTP, without sessions: each stands by itself. */
export async function serveRequest(request: Request, parsedBody: unknown, options: ProtocolOptions): Promise<Response> {
  const handler = createMcpHandler(() => createProtocolServer(options), { onerror: () => {} });
  return handler.fetch(request, { parsedBody });
}
