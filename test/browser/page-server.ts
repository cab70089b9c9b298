/** Serves a page whose only script is the SDK's browser entry with a test's scenes. It has nothing of volantd: to it, the page is another origin's. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { build } from "esbuild";

const PAGE = `<!doctype html><meta charset="utf-8"><title>scenes</title><link rel="icon" href="data:,"><script src="/scenes.js"></script>`;

/** What a page of the project's would load: bundled for browsers, where an import of Node's fails. @param entry a file of this folder */
async function bundle(entry: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, entry)],
    bundle: true,
    write: false,
    platform: "browser",
    format: "iife",
    target: "es2022",
    logLevel: "silent",
  });
  return outputFiles[0]?.text ?? "";
}

export class PageServer {
  readonly origin: string;
  readonly #server: Server;

  /** @param entry the script, a file of this folder */
  static async open(entry: string): Promise<PageServer> {
    const script = await bundle(entry);
    const server = createServer(({ url }, answer) => {
      const isScript = url === "/scenes.js";
      answer.setHeader("content-type", isScript ? "text/javascript" : "text/html");
      answer.end(isScript ? script : PAGE);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    return new PageServer(server);
  }

  private constructor(server: Server) {
    this.#server = server;
    this.origin = `http://localhost:${(server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
