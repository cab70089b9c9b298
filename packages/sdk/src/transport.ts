/**
 * One HTTP request of the API: path, key, JSON, errors. Uses nothing but fetch(), so that it runs in browsers too; the route's schemas are needed
 * for their types alone.
 */
import type { ErrorBody, RouteBody, RouteParams, RouteQuery, RouteResponse } from "@volant/contract";
import { API_KEY_HEADER, ENDPOINTS, fillPath, type RouteId } from "@volant/contract/endpoints";
import { ERROR_CODES, isErrorCode, VolantError, type ErrorCode } from "@volant/contract/errors";

export interface TransportOptions {
  /** Where volantd listens, such as `http://127.0.0.1:7777`; a path prefix is kept. */
  readonly baseUrl: string;
  readonly apiKey?: string | undefined;
}

export type UploadBody = Blob | AsyncIterable<Uint8Array>;

/** What a call carries: just the parts that its route has. */
export type CallInput<Id extends RouteId> = {
  readonly signal?: AbortSignal | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  readonly upload?: UploadBody;
} & ([RouteParams<Id>] extends [undefined] ? object : { readonly params: RouteParams<Id> }) &
  ([RouteBody<Id>] extends [undefined] ? object : { readonly body: RouteBody<Id> }) &
  ([RouteQuery<Id>] extends [undefined] ? object : { readonly query?: RouteQuery<Id> });

interface LooseInput {
  readonly signal?: AbortSignal;
  readonly headers?: Readonly<Record<string, string>>;
  readonly upload?: UploadBody;
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, unknown>>;
  readonly body?: unknown;
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

/** Bytes for fetch(): an iterable becomes a stream, which is sent as it comes. */
function uploadInit(upload: UploadBody): RequestInit {
  if (upload instanceof Blob) return { body: upload };
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
  // Fetch Standard: a streamed request body is half duplex only, and says so.
  return { body, duplex: "half" } as RequestInit;
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

  /** @throws VolantError `invalid` when the base URL is none */
  constructor({ baseUrl, apiKey }: TransportOptions) {
    this.baseUrl = checkBaseUrl(baseUrl);
    this.#apiKey = apiKey;
  }

  /**
   * Sends a request and gives the good answer.
   *
   * @throws VolantError the server's error with its code and hint, or `not_ready` when no volantd answers
   */
  async request<Id extends RouteId>(id: Id, input: CallInput<Id>): Promise<Response> {
    const { method, path } = ENDPOINTS[id];
    const { params = {}, query, body, upload, signal, headers } = input as LooseInput;
    const init: RequestInit = {
      method,
      headers: {
        ...(this.#apiKey === undefined ? {} : { [API_KEY_HEADER]: this.#apiKey }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...(upload === undefined ? {} : { "content-type": "application/octet-stream" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(upload === undefined ? {} : uploadInit(upload)),
      ...(signal === undefined ? {} : { signal }),
      // volantd never redirects: whatever does is not volantd, and must not get the key.
      redirect: "error",
    };
    let response: Response;
    try {
      response = await fetch(`${this.baseUrl}${fillPath(path, params)}${queryText(query)}`, init);
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#unreachable(error);
    }
    if (!response.ok) throw method === "HEAD" ? this.#bareRefusal(response.status) : await this.#refusal(response);
    return response;
  }

  /** The JSON of the good answer and its headers. */
  async call<Id extends RouteId>(
    id: Id,
    input: CallInput<Id>,
  ): Promise<{ readonly body: RouteResponse<Id>; readonly headers: Headers }> {
    const response = await this.request(id, input);
    if (response.status === 204) return { body: undefined as RouteResponse<Id>, headers: response.headers };
    return { body: (await this.#json(response)) as RouteResponse<Id>, headers: response.headers };
  }

  async #json(response: Response): Promise<unknown> {
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
    return stranger(this.baseUrl);
  }

  #unreachable(error: unknown): unknown {
    // fetch() reports every failure of the network as a TypeError; anything else is a bug or comes from the upload's source.
    if (!(error instanceof TypeError)) return error;
    const cause = error.cause instanceof VolantError ? error.cause : undefined;
    if (cause !== undefined) return cause;
    return noAnswer(this.baseUrl, error);
  }

  /** An answer to HEAD has no body: the status is all there is. */
  #bareRefusal(status: number): VolantError {
    const found = Object.entries(ERROR_CODES).find(([, facts]) => facts.status === status);
    return found === undefined ? this.#stranger() : new VolantError(found[0] as ErrorCode, found[1].meaning);
  }

  async #refusal(response: Response): Promise<VolantError> {
    return parseRefusal(await response.text().catch(() => "")) ?? this.#stranger();
  }
}
