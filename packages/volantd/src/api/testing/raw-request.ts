/** One HTTP request with full control over its headers and source address: fetch() allows neither Host nor Origin to be chosen. */
import { request, type IncomingHttpHeaders } from "node:http";

export interface RawAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The body, parsed, where it is JSON. */
  readonly json: unknown;
}

export interface RawRequest {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  readonly localAddress?: string;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Sends it on a connection of its own. `target` is sent as it is, not normalised. */
export function rawRequest(base: string, target: string, options: RawRequest = {}): Promise<RawAnswer> {
  const { hostname, port } = new URL(base);
  const { method = "GET", body, localAddress } = options;
  // Node sends the body of a DELETE without saying how long it is, unless told to.
  const length: Record<string, string> =
    body === undefined || options.headers?.["transfer-encoding"] !== undefined
      ? {}
      : { "content-length": String(Buffer.byteLength(body)) };
  const headers = { ...length, ...options.headers };
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        hostname,
        port,
        path: target,
        method,
        headers,
        agent: false,
        ...(localAddress === undefined ? {} : { localAddress }),
      },
      (incoming) => {
        let text = "";
        incoming.setEncoding("utf8").on("data", (part: string) => (text += part));
        incoming.once("error", reject);
        incoming.once("end", () =>
          resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text, json: parsed(text) }),
        );
      },
    );
    outgoing.once("error", reject);
    outgoing.end(body);
  });
}

/** Sends JSON by POST, or by another method. */
export function sendJson(base: string, target: string, value: unknown, method = "POST"): Promise<RawAnswer> {
  return rawRequest(base, target, {
    method,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(value),
  });
}
