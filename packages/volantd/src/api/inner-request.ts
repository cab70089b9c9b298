/**
 * A request of a route by another route, on the same connection's behalf. It goes the way of every request, through the gates and checks, and as the same
 * client: the socket is the outer request's, and so are the headers that say who asks. The answer is gathered and never sent.
 */
import { IncomingMessage, ServerResponse, type IncomingHttpHeaders } from "node:http";
import { Duplex } from "node:stream";

/** Of the outer request: who asks, from where, and as what. Headers that say what is asked are not for another request. */
const KEPT_HEADERS = ["host", "origin", "authorization", "x-volant-api-key", "user-agent", "forwarded"];

function isKept(name: string): boolean {
  return KEPT_HEADERS.includes(name) || name.startsWith("x-forwarded-");
}

/** An answer that is larger is given up. */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;

export interface InnerRequest {
  readonly method: string;
  readonly url: string;
  /** Sent as JSON, where there is one. */
  readonly body?: unknown;
}

export interface InnerAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** A request whose body is there already. */
class Asked extends IncomingMessage {
  constructor(outer: IncomingMessage, { method, url, body }: InnerRequest) {
    super(outer.socket);
    const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const kept = Object.entries(outer.headers).filter(([name]) => isKept(name));
    const headers: IncomingHttpHeaders = Object.fromEntries(kept);
    if (bytes !== undefined) {
      headers["content-type"] = "application/json";
      headers["content-length"] = String(bytes.length);
    }
    this.method = method;
    this.url = url;
    // 1.0, so that the answer is not cut into chunks.
    this.httpVersion = "1.0";
    [this.httpVersionMajor, this.httpVersionMinor] = [1, 0];
    this.headers = headers;
    this.rawHeaders = Object.entries(headers).flatMap(([name, value]) => [name, String(value)]);
    if (bytes !== undefined) this.push(bytes);
    this.push(null);
    this.complete = true;
  }

  // The socket is not read for it.
  override _read(): void {}
}

/** Takes what an answer writes. */
class Gathered extends Duplex {
  readonly #parts: Buffer[] = [];
  #bytes = 0;

  constructor() {
    // Whoever writes is never to wait: nobody would tell an answer without a server that there is room again.
    super({ writableHighWaterMark: MAX_ANSWER_BYTES });
  }

  override _read(): void {}

  override _write(part: Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.#bytes += part.length;
    if (this.#bytes > MAX_ANSWER_BYTES) {
      done(new Error("an inner answer is too large"));
      return;
    }
    this.#parts.push(part);
    done();
  }

  /** Head and body. */
  get parts(): { readonly headers: Headers; readonly text: string } {
    const bytes = Buffer.concat(this.#parts);
    const end = bytes.indexOf("\r\n\r\n");
    const lines = bytes.subarray(0, end).toString("latin1").split("\r\n").slice(1);
    const pairs = lines.map((line): [string, string] => [
      line.slice(0, line.indexOf(":")),
      line.slice(line.indexOf(":") + 1).trim(),
    ]);
    return { headers: new Headers(pairs), text: bytes.subarray(end + 4).toString("utf8") };
  }
}

/**
 * Asks.
 *
 * @param route the server's own way from a request to an answer
 * @throws the signal's reason, once it aborts: whatever works on the request is told that its client is gone
 */
export async function askInside(
  route: (request: IncomingMessage, response: ServerResponse) => void,
  outer: IncomingMessage,
  asked: InnerRequest,
  signal: AbortSignal,
): Promise<InnerAnswer> {
  signal.throwIfAborted();
  const request = new Asked(outer, asked);
  const response = new ServerResponse(request);
  const gathered = new Gathered();
  gathered.on("error", () => {});
  response.assignSocket(gathered as never);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  response.once("finish", () => resolve(true));
  gathered.once("close", () => resolve(false));
  const giveUp = () => void gathered.destroy();
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    route(request, response);
    const isWhole = await promise;
    signal.throwIfAborted();
    if (!isWhole) throw new Error("a route broke off its answer to an inner request");
    return { status: response.statusCode, ...gathered.parts };
  } finally {
    signal.removeEventListener("abort", giveUp);
    // Seen as the end of the connection by whoever waits for it.
    gathered.destroy();
  }
}
