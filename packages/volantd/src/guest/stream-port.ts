/**
 * The link's stream port: HTTP/2 into a guest, which begins when a stream is asked for and ends when none has been open for a while. It belongs to a session and ends with it. Wire
 * format: docs/agent-protocol.md.
 */
import type {
  ClientHttp2Session,
  ClientHttp2Stream,
  ClientSessionRequestOptions,
  OutgoingHttpHeaders,
} from "node:http2";
import { VolantError } from "@volant/contract";
import { orAborted } from "../or-aborted.ts";
import { breakStreams, connectTo, synchronise } from "./http-session.ts";

export interface StreamPortOptions {
  /** The port's Unix socket. */
  readonly path: string;
  /** 32 lower-case hexadecimal digits, never the same twice. */
  readonly randomNonce: () => string;
  /** Has the agent open the port anew, and greet on it with this nonce. */
  readonly greet: (nonce: string) => Promise<unknown>;
  /** How long the agent may take to greet: it does so once, so a host that missed it would wait for ever. */
  readonly greetingMs: number;
  /** How long a connection without a stream stays. */
  readonly idleMs: number;
}

/** One session's stream port. */
export class StreamPort {
  readonly #options: StreamPortOptions;
  readonly #ended = new AbortController();
  #connection: Promise<ClientHttp2Session> | undefined;
  #open = 0;
  #idle: NodeJS.Timeout | undefined;

  constructor(options: StreamPortOptions) {
    this.#options = options;
  }

  /**
   * Begins a request, on a connection that is made where there is none.
   *
   * @throws VolantError `guest_unreachable`; the signal's reason
   */
  async request(
    headers: OutgoingHttpHeaders,
    options: ClientSessionRequestOptions & { readonly signal?: AbortSignal },
  ): Promise<ClientHttp2Stream> {
    clearTimeout(this.#idle);
    this.#open += 1;
    try {
      let http = await this.#session(options.signal);
      // What has just broken has not said so yet.
      if (http.destroyed || http.closed) {
        this.#connection = undefined;
        http = await this.#session(options.signal);
      }
      const stream = http.request(headers, options);
      stream.once("close", () => this.#release());
      return stream;
    } catch (error) {
      this.#release();
      throw error;
    }
  }

  /** The session has ended, and every stream with it. */
  end(): void {
    clearTimeout(this.#idle);
    this.#ended.abort(broken());
  }

  #release(): void {
    this.#open -= 1;
    if (this.#open > 0 || this.#connection === undefined || this.#ended.signal.aborted) return;
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => {
      const idle = this.#connection;
      this.#connection = undefined;
      void idle?.then(
        (http) => http.close(),
        () => {},
      );
    }, this.#options.idleMs);
    this.#idle.unref();
  }

  #session(signal: AbortSignal | undefined): Promise<ClientHttp2Session> {
    let connection = this.#connection;
    if (connection === undefined) {
      connection = this.#connect();
      this.#connection = connection;
      const forget = (): void => {
        if (this.#connection === connection) this.#connection = undefined;
      };
      connection.then((http) => http.once("close", forget), forget);
    }
    return signal === undefined ? connection : orAborted(connection, signal);
  }

  async #connect(): Promise<ClientHttp2Session> {
    const { path, randomNonce, greet, greetingMs } = this.#options;
    const { signal } = this.#ended;
    signal.throwIfAborted();
    // The stream comes first: the agent must find a host on it when it greets.
    const socket = await connectTo(path, signal);
    const failed = Promise.withResolvers<never>();
    // A failure between two awaits must not count as unhandled.
    failed.promise.catch(() => {});
    const fail = (what: string): void => failed.reject(new VolantError("guest_unreachable", what));
    const onEnd = (): void => failed.reject(signal.reason);
    signal.addEventListener("abort", onEnd, { once: true });
    socket.on("error", (error) => fail(error.message)).once("close", () => fail("the hypervisor closed the stream"));
    const late = setTimeout(() => fail("the guest's agent is silent on its stream port"), greetingMs);
    late.unref();
    try {
      if (signal.aborted) onEnd();
      const nonce = randomNonce();
      const synchronised = synchronise(socket, nonce);
      // Whichever comes first tells of the end; the others must not count as unhandled.
      synchronised.catch(() => {});
      await Promise.race([greet(nonce), failed.promise]);
      const http = await Promise.race([synchronised, failed.promise]);
      breakStreams(socket, http, broken);
      http.once("goaway", () => http.destroy(broken()));
      const onSessionEnd = (): void => http.destroy(broken());
      signal.addEventListener("abort", onSessionEnd, { once: true });
      http.once("close", () => {
        signal.removeEventListener("abort", onSessionEnd);
        socket.destroy();
      });
      return http;
    } catch (error) {
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(late);
      signal.removeEventListener("abort", onEnd);
    }
  }
}

function broken(): VolantError {
  return new VolantError("guest_unreachable", "the connection to the guest's agent broke");
}
