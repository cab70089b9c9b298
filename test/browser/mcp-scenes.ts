/** What runs in the page: a client of the Model Context Protocol, the protocol's own. */
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

export const scenes = {
  /** Connects, lists tools and calls one. @param isNewest whether the client may speak the protocol without a handshake, too */
  async useTools(url: string, apiKey: string, isNewest: boolean) {
    const options = isNewest ? { versionNegotiation: { mode: "auto" as const } } : {};
    const client = new Client({ name: "a-page", version: "1.0.0" }, options);
    const requestInit = { headers: { "X-Volant-API-Key": apiKey } };
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
    const { tools } = await client.listTools();
    const { structuredContent } = await client.callTool({ name: "vms_list", arguments: {} });
    const version = client.getNegotiatedProtocolVersion() ?? "";
    await client.close();
    return { version, tools: tools.length, total: (structuredContent as { total?: unknown } | undefined)?.total };
  },
};

export type McpScenes = typeof scenes;
Object.assign(globalThis, { scenes });
