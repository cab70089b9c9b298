/**
 * fetch() over TCP, TLS or a Unix socket, as far as the SDK needs it. Node's own takes no socket path, and costs volar more time at its start than all else
 * that it loads: so nothing here may touch fetch(), Headers, Request or Response, each of which loads it.
 */
import type { ClientRequest, IncomingMessage } from "node:http";
import { isAbsolute } from "node:path";
import { Readable } from "node:stream";
import { VolantError } from "@volant/contract/errors";
import { checkBaseUrl, type Answer, type Fetch, type SentRequest, type TransportOptions } from "../transport.ts";
import { requestFunction } from "./http-client.ts";

/** What an address begins with that is a Unix socket's path. */
const UNIX_SCHEME = "unix:";
/**
 * A quiet connection is tried so often. An answer may take an hour, as a plugin's action may, where Node's fetch() waits for five minutes: a peer that is gone is
 * found by this, and not by its silence.
 */
const KEEP_ALIVE_MS = 60_000;
/** Fetch Standard, "null body status". */
const WITHOUT_BODY: readonly number[] = [204, 205, 304];

/** The socket's path of an address such as `unix:/run/volant/api.sock`; undefined for one that is a URL. @throws VolantError `invalid` */
export function socketPathOf(address: string): string | undefined {
  if (!address.startsWith(UNIX_SCHEME)) return undefined;
  const path = address.slice(UNIX_SCHEME.length);
  if (isAbsolute(path) && !path.includes("\0")) return path;
  throw new VolantError(
    "invalid",
    `the API's address ${JSON.stringify(address)} has no absolute path, as unix:/path has`,
  );
}

/** Says how long the body is where that is known: Node does not, for every method. */
function lengthOf(body: SentRequest["body"]): Record<string, string> {
  if (body instanceof Blob) return { "content-length": String(body.size) };
  if (body === undefined || body instanceof ReadableStream) return {};
  return { "content-length": String(Buffer.byteLength(body)) };
}

/** The body of a request: bytes, or the stream that the transport makes of an upload. */
function send(body: SentRequest["body"], outgoing: ClientRequest): void {
  if (body instanceof Blob) {
    send(body.stream(), outgoing);
    return;
  }
  if (!(body instanceof ReadableStream)) {
    outgoing.end(body);
    return;
  }
  const source = Readable.fromWeb(body as Parameters<typeof Readable.fromWeb>[0]);
  source.once("error", (error) => outgoing.destroy(error));
  outgoing.once("close", () => source.destroy());
  source.pipe(outgoing);
}

/** An answer's body as it comes. It fails as fetch()'s does: with a TypeError, or the signal's reason. */
function bodyOf(incoming: IncomingMessage, signal: AbortSignal | undefined): ReadableStream<Uint8Array<ArrayBuffer>> {
  const parts = incoming[Symbol.asyncIterator]() as AsyncIterator<Uint8Array<ArrayBuffer>>;
  return new ReadableStream(
    {
      async pull(controller) {
        let next: IteratorResult<Uint8Array<ArrayBuffer>>;
        try {
          next = await parts.next();
        } catch (error) {
          signal?.throwIfAborted();
          throw new TypeError("terminated", { cause: error });
        }
        if (next.done === true) controller.close();
        else controller.enqueue(next.value);
      },
      cancel() {
        incoming.destroy();
      },
    },
    // Nothing is read before it is asked for.
    { highWaterMark: 0 },
  );
}

async function textOf(body: ReadableStream<Uint8Array<ArrayBuffer>> | null): Promise<string> {
  const parts: Uint8Array[] = [];
  for await (const part of body ?? []) parts.push(part);
  return new TextDecoder().decode(Buffer.concat(parts));
}

function answerOf(incoming: IncomingMessage, { method, signal }: SentRequest): Answer {
  const status = incoming.statusCode ?? 0;
  const isBare = method === "HEAD" || WITHOUT_BODY.includes(status);
  if (isBare) incoming.resume();
  const body = isBare ? null : bodyOf(incoming, signal);
  const valuesOf = (name: string) => incoming.headersDistinct[name.toLowerCase()];
  return {
    status,
    statusText: incoming.statusMessage ?? "",
    ok: status >= 200 && status < 300,
    headers: { get: (name) => valuesOf(name)?.join(", ") ?? null, has: (name) => valuesOf(name) !== undefined },
    body,
    text: () => textOf(body),
    json: async () => JSON.parse(await textOf(body)) as unknown,
  };
}

/**
 * fetch() on Node's plain HTTP client. Fails as fetch() does: with a TypeError, or the signal's reason.
 *
 * @param socketPath whoever listens there is asked, whatever host the URL names
 */
export function httpFetch(socketPath?: string): Fetch {
  return (address, sent) => {
    const { method, headers, body, signal, redirect } = sent;
    const url = new URL(address);
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const outgoing = requestFunction(url.protocol)(url, {
      method,
      // An answer is passed on as it is: none may come compressed.
      headers: { accept: "*/*", "accept-encoding": "identity", ...lengthOf(body), ...headers },
      // A connection for each request: none can turn out to be closed by then.
      agent: false,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(signal === undefined ? {} : { signal }),
    });
    outgoing.setSocketKeepAlive(true, KEEP_ALIVE_MS);
    outgoing.on("error", (error) => {
      if (signal?.aborted === true) reject(signal.reason as Error);
      else reject(error instanceof VolantError ? error : new TypeError("fetch failed", { cause: error }));
    });
    outgoing.once("close", () => reject(new TypeError("the connection ended without an answer")));
    outgoing.once("response", (incoming) => {
      const status = incoming.statusCode ?? 0;
      if (redirect === "manual" || status < 300 || status >= 400) return resolve(answerOf(incoming, sent));
      outgoing.destroy();
      return reject(new TypeError("unexpected redirect"));
    });
    send(body, outgoing);
    return promise;
  };
}

/** Options for a client of whatever address is given: a URL, or `unix:` and the path of a socket. @throws VolantError `invalid` */
export function transportOptions({ baseUrl, apiKey }: TransportOptions): TransportOptions {
  const socketPath = socketPathOf(baseUrl);
  if (socketPath === undefined) return { baseUrl: checkBaseUrl(baseUrl), apiKey, fetch: httpFetch() };
  return { baseUrl: "http://localhost", name: baseUrl, apiKey, fetch: httpFetch(socketPath) };
}
