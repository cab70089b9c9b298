/**
 * One HTTP request of the API: path, key, JSON, errors. Uses nothing but fetch(), so that it runs in browsers too; the route's schemas are needed
 * for their types alone.
 */
import type { ErrorBody, RouteBody, RouteParams, RouteQuery, RouteResponse } from "@volant/contract";
import {
  ANSWERED_BY_HEADER,
  API_KEY_HEADER,
  ENDPOINTS,
  fillPath,
  IDEMPOTENCY_HEADER,
  SOCKET_ENDPOINTS,
  SOCKET_KEY_PREFIX,
  SOCKET_PROTOCOL,
  type SocketId,
  type RouteId,
} from "@volant/contract/endpoints";
import { ERROR_CODES, isErrorCode, VolantError, type ErrorCode } from "@volant/contract/errors";
import { delay } from "./delay.ts";
import { mayHaveArrived, RETRY_PAUSES_MS } from "./retry.ts";

export interface TransportOptions {
  /** Where volantd listens, such as `http://127.0.0.1:7777`; a path prefix is kept. */
  readonly baseUrl: string;
  readonly apiKey?: string | undefined;
  /** What sends requests. Default: fetch(). */
  readonly fetch?: Fetch | undefined;
  /** What the address is called in errors. Default: `baseUrl`. */
  readonly name?: string | undefined;
}

/** What is asked of fetch(). */
export interface SentRequest {
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body?: string | Uint8Array<ArrayBuffer> | Blob | ReadableStream<Uint8Array>;
  /** Fetch Standard: a streamed request body is half duplex only, and says so. */
  readonly duplex?: "half";
  readonly signal?: AbortSignal;
  /** volantd never redirects: whatever does is not volantd, and must not get the key. Where a workload sends a client to is the client's to follow. */
  readonly redirect: "error" | "manual";
}

/** As much of a Response as is used. */
export interface Answer extends Pick<Response, "status" | "statusText" | "ok" | "body" | "text" | "json"> {
  readonly headers: AnswerHeaders;
}

export type AnswerHeaders = Pick<Headers, "get" | "has">;

/** As much of fetch() as is used. */
export type Fetch = (url: string, init: SentRequest) => Promise<Answer>;

export type UploadBody = Blob | AsyncIterable<Uint8Array>;

/** What a call carries: just the parts that its route has. */
export type CallInput<Id extends RouteId> = {
  readonly signal?: AbortSignal | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /** Its `Idempotency-Key`: it is sent again when the connection breaks. */
  readonly key?: string | undefined;
  readonly upload?: UploadBody;
} & ([RouteParams<Id>] extends [undefined] ? object : { readonly params: RouteParams<Id> }) &
  ([RouteBody<Id>] extends [undefined] ? object : { readonly body: RouteBody<Id> }) &
  ([RouteQuery<Id>] extends [undefined] ? object : { readonly query?: RouteQuery<Id> });

interface PassOptions {
  readonly method?: string | undefined;
  readonly body?: string | Uint8Array<ArrayBuffer> | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What a call carries whose route is known only at run time. */
export interface AnyCall {
  readonly signal?: AbortSignal;
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly body?: unknown;
}

interface LooseInput extends AnyCall {
  readonly key?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly upload?: UploadBody;
}

function queryText(query: Readonly<Record<string, unknown>> = {}): string {
  const pairs = Object.entries(query).flatMap(([name, value]) => {
    if (value === undefined) return [];
    return (Array.isArray(value) ? value : [value]).map((item: unknown): [string, string] => [name, String(item)]);
  });
  return pairs.length === 0 ? "" : `?${new URLSearchParams(pairs).toString()}`;
}

/** The base URL without a slash at its end. @throws VolantError `invalid` when it is none */
export function checkBaseUrl(text: string): string {
  if (text.startsWith("unix:")) {
    throw new VolantError("invalid", `the API's address ${JSON.stringify(text)} is a Unix socket, which needs Node`, {
      hint: "in Node: new VolantClient(transportOptions({ baseUrl })), with transportOptions of @volant/sdk/transport",
    });
  }
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw new VolantError("invalid", `the API's address ${JSON.stringify(text)} is no URL like http://127.0.0.1:7777`);
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new VolantError("invalid", "the API's address must hold no user name, password, query or fragment", {
      hint: "an API key goes into --api-key, VOLANT_API_KEY or the client's apiKey option",
    });
  }
  return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
}

/** Browsers stream a request's body over HTTP/2 alone, if at all, and volantd speaks HTTP/1.1. */
const CAN_STREAM = typeof globalThis.process?.versions?.node === "string";

/** Bytes for fetch(): an iterable becomes a stream, which is sent as it comes; in a browser a Blob, which is gathered before. */
async function uploadInit(upload: UploadBody): Promise<Pick<SentRequest, "body" | "duplex">> {
  if (upload instanceof Blob) return { body: upload };
  if (!CAN_STREAM) {
    const parts: Uint8Array<ArrayBuffer>[] = [];
    for await (const bytes of upload) parts.push(bytes.slice());
    return { body: new Blob(parts) };
  }
  const iterator = upload[Symbol.asyncIterator]();
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = await iterator.next();
      if (next.done === true) controller.close();
      else controller.enqueue(next.value);
    },
    async cancel() {
      await iterator.return?.();
    },
  });
  return { body, duplex: "half" };
}

/** What answers there is not volantd. */
export function stranger(baseUrl: string): VolantError {
  return new VolantError("not_ready", `what answers at ${baseUrl} is not volantd`, {
    hint: "name volantd's address with --api, VOLANT_API_BASE or the client's baseUrl option",
  });
}

/** Nothing answers there. */
export function noAnswer(baseUrl: string, cause: Error): VolantError {
  return new VolantError("not_ready", `volantd does not answer at ${baseUrl}: is it running?`, {
    hint: "start it with volantd, or name its address with --api or VOLANT_API_BASE",
    cause,
  });
}

/** The server's error in the body of a bad answer; undefined when it is none of volantd's. */
export function parseRefusal(text: string): VolantError | undefined {
  let body: Partial<ErrorBody> | null;
  try {
    body = JSON.parse(text) as Partial<ErrorBody> | null;
  } catch {
    return undefined;
  }
  if (typeof body?.error !== "string" || !isErrorCode(body.code)) return undefined;
  return new VolantError(body.code, body.error, typeof body.hint === "string" ? { hint: body.hint } : {});
}

export class Transport {
  readonly baseUrl: string;
  readonly #apiKey: string | undefined;
  readonly #fetch: Fetch;
  readonly #name: string;

  /** @throws VolantError `invalid` when the base URL is none */
  constructor({ baseUrl, apiKey, fetch: send, name }: TransportOptions) {
    this.baseUrl = checkBaseUrl(baseUrl);
    this.#apiKey = apiKey;
    // As it is when it is called: a page may replace it.
    this.#fetch = send ?? ((url, init) => fetch(url, init));
    this.#name = name ?? this.baseUrl;
  }

  /**
   * Sends a request and gives the good answer.
   *
   * @throws VolantError the server's error with its code and hint, or `not_ready` when no volantd answers
   */
  async request<Id extends RouteId>(id: Id, input: CallInput<Id>): Promise<Answer> {
    const { method, path } = ENDPOINTS[id];
    const { params = {}, query, body, upload, signal, headers, key } = input as LooseInput;
    const init: SentRequest = {
      method,
      headers: {
        ...(this.#apiKey === undefined ? {} : { [API_KEY_HEADER]: this.#apiKey }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(upload === undefined ? {} : { "content-type": "application/octet-stream" }),
        ...(key === undefined ? {} : { [IDEMPOTENCY_HEADER]: key }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(upload === undefined ? {} : await uploadInit(upload)),
      ...(signal === undefined ? {} : { signal }),
      redirect: "error",
    };
    const url = `${this.baseUrl}${fillPath(path, params)}${queryText(query)}`;
    const response = await this.#send(url, init, key === undefined ? [] : RETRY_PAUSES_MS);
    // A workload's own answer is one, whatever its status.
    if (response.ok || response.headers.has(ANSWERED_BY_HEADER)) return response;
    throw method === "HEAD" ? this.#bareRefusal(response.status) : await this.#refusal(response);
  }

  /**
   * Sends a request to a workload by way of the proxy, and gives its answer, whatever the status.
   *
   * @throws VolantError where the answer is volantd's own and refuses
   */
  async pass(path: string, { method = "GET", headers, body, signal }: PassOptions): Promise<Answer> {
    if (body !== undefined && (method === "GET" || method === "HEAD")) {
      throw new VolantError("invalid", `a ${method} has no body`);
    }
    const init: SentRequest = {
      method,
      headers: { ...headers, ...(this.#apiKey === undefined ? {} : { [API_KEY_HEADER]: this.#apiKey }) },
      ...(body === undefined ? {} : { body }),
      ...(signal === undefined ? {} : { signal }),
      redirect: "manual",
    };
    const response = await this.#send(`${this.baseUrl}${path}`, init, []);
    if (response.headers.has(ANSWERED_BY_HEADER)) return response;
    throw method === "HEAD" ? this.#bareRefusal(response.status) : await this.#refusal(response);
  }

  /** @param pausesMs before each further attempt, where the request may be repeated; the first one that never arrived is not, since nothing answers there */
  async #send(url: string, init: SentRequest, pausesMs: readonly number[]): Promise<Answer> {
    const { signal } = init;
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#fetch(url, init);
      } catch (error) {
        signal?.throwIfAborted();
        const pauseMs = pausesMs[attempt];
        if (pauseMs === undefined || (attempt === 0 && !mayHaveArrived(error))) throw this.#unreachable(error);
        await delay(pauseMs, signal);
      }
    }
  }

  /** A WebSocket of the API, which is not open yet. The key goes with it as browsers can send it. */
  webSocket(id: SocketId, params: Readonly<Record<string, string>>, query: AnyCall["query"] = {}): WebSocket {
    const base = this.baseUrl.replace(/^http/, "ws");
    const url = `${base}${fillPath(SOCKET_ENDPOINTS[id].path, params)}${queryText(query)}`;
    const bytes = String.fromCharCode(...new TextEncoder().encode(this.#apiKey ?? ""));
    const key = btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    const protocols = this.#apiKey === undefined ? [] : [`${SOCKET_KEY_PREFIX}${key}`];
    return new WebSocket(url, [SOCKET_PROTOCOL, ...protocols]);
  }

  /** The JSON of the good answer and its headers. */
  async call<Id extends RouteId>(
    id: Id,
    input: CallInput<Id>,
  ): Promise<{ readonly body: RouteResponse<Id>; readonly headers: AnswerHeaders; readonly status: number }> {
    const response = await this.request(id, input);
    const { headers, status } = response;
    if (status === 204) return { body: undefined as RouteResponse<Id>, headers, status };
    return { body: (await this.#json(response)) as RouteResponse<Id>, headers, status };
  }

  async #json(response: Answer): Promise<unknown> {
    const text = await response.text().catch((error: unknown) => {
      throw this.#unreachable(error);
    });
    try {
      return JSON.parse(text);
    } catch {
      throw this.#stranger();
    }
  }

  #stranger(): VolantError {
    return stranger(this.#name);
  }

  #unreachable(error: unknown): unknown {
    // fetch() reports every failure of the network as a TypeError; anything else is a bug or comes from the upload's source.
    if (!(error instanceof TypeError)) return error;
    const cause = error.cause instanceof VolantError ? error.cause : undefined;
    if (cause !== undefined) return cause;
    return noAnswer(this.#name, error);
  }

  /** An answer to HEAD has no body: the status is all there is. */
  #bareRefusal(status: number): VolantError {
    const found = Object.entries(ERROR_CODES).find(([, facts]) => facts.status === status);
    return found === undefined ? this.#stranger() : new VolantError(found[0] as ErrorCode, found[1].meaning);
  }

  async #refusal(response: Answer): Promise<VolantError> {
    return parseRefusal(await response.text().catch(() => "")) ?? this.#stranger();
  }
}
