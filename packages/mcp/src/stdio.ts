import type { Readable, Writable } from "node:stream";
import { serveStdio, StdioServerTransport } from "@modelcontextprotocol/server/stdio";
import { createProtocolServer, type ProtocolOptions } from "./protocol.ts";

export interface StdioOptions extends ProtocolOptions {
  readonly stdin: Readable;
  readonly stdout: Writable;
}

/** Serves one client, and resolves when it has closed its end. */
export async function serveOverStdio({ stdin, stdout, ...options }: StdioOptions): Promise<void> {
  const ended = Promise.withResolvers<void>();
  for (const event of ["end", "close"]) stdin.once(event, () => ended.resolve());
  // It may have ended while all this was loaded, and then tells nobody again.
  if (stdin.readableEnded || stdin.destroyed) ended.resolve();
  const served = serveStdio(() => createProtocolServer(options), {
    transport: new StdioServerTransport(stdin, stdout),
  });
  await ended.promise;
  await served.close();
}
