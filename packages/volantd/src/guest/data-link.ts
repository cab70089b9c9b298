/**
 * The link's second connection to a guest's agent, for data: streams of exec, forward and the proxy go over it while it stands, and over the link's own
 * stream where it does not. It belongs to a session, begins with its nonce and ends with it. Wire format: docs/agent-protocol.md.
 */
import type { ClientHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { VolantError } from "@volant/contract";
import type { AgentInfo } from "./control-lines.ts";
import { breakStreams, keepAlive, synchronise } from "./http-session.ts";
import { messageOf } from "../message-of.ts";

/** The agent greets at once; over a device that has failed, nothing ever comes. */
const GREETING_TIMEOUT_MS = 5000;
/** Pause before a connection that broke is made again: doubling, since what broke it may do so again. */
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 60_000;

/** A way into one guest besides the link's own sockets. */
export interface DataTransport {
  /** The guest is paused: nothing is sent now, so no answer can be expected. */
  readonly held: boolean;
  /** Why it carries nothing and never will again; undefined when it may. Never throws. */
  trouble(): Promise<string | undefined>;
  /**
   * A connection to a port of the guest, paused. To be closed only within {@link DataTransport.whenRunning}.
   *
   * @throws VolantError `not_ready`, saying why not; the signal's reason
   */
  connect(port: number, signal: AbortSignal): Promise<Socket>;
  /** Does something now, or, where the guest is paused, when it goes on or is gone. */
  whenRunning(action: () => void): void;
}

/** How data reaches the guest now. `reason`: why not as it should. */
export type TransportState = { readonly name: "vsock" } | { readonly name: "virtio-serial"; readonly reason?: string };

/** What to tell of it; undefined where there is nothing to tell: data goes the way it always does. */
export function transportText(state: TransportState): string | undefined {
  if (state.name === "vsock") return "its data goes over vsock";
  return state.reason === undefined ? undefined : `its data goes over virtio-serial: ${state.reason}`;
}

export interface DataLinkOptions {
  /** Undefined where the guest is not meant to have one. */
  readonly transport: DataTransport | undefined;
  readonly heartbeatMs: number;
  /** Called when {@link DataLink.state} has changed. */
  readonly onChange: () => void;
}

export class DataLink {
  readonly #options: DataLinkOptions;
  #attempt: AbortController | undefined;
  #http: ClientHttp2Session | undefined;
  #reason: string | undefined;

  constructor(options: DataLinkOptions) {
    this.#options = options;
  }

  /** The connection, while it stands and may be used. */
  get http(): ClientHttp2Session | undefined {
    return this.#stands() && this.#options.transport?.held !== true ? this.#http : undefined;
  }

  #stands(): boolean {
    return this.#http !== undefined && !this.#http.destroyed && !this.#http.closed;
  }

  get state(): TransportState {
    if (this.#stands()) return { name: "vsock" };
    return { name: "virtio-serial", ...(this.#reason === undefined ? {} : { reason: this.#reason }) };
  }

  /** A session has begun: makes the connection, and makes it again while that has a point. */
  begin(agent: AgentInfo, nonce: string): void {
    this.end();
    const { transport } = this.#options;
    if (transport === undefined) return;
    this.#attempt = new AbortController();
    void this.#run(transport, agent.vsockPort, nonce, this.#attempt.signal);
  }

  /** The session has ended. */
  end(): void {
    this.#attempt?.abort();
    this.#attempt = undefined;
    this.#http = undefined;
    this.#reason = undefined;
  }

  async #run(transport: DataTransport, port: number | undefined, nonce: string, signal: AbortSignal): Promise<void> {
    let pauseMs = FIRST_RETRY_MS;
    while (!signal.aborted) {
      const ended =
        port === undefined
          ? new VolantError("not_ready", "its agent does not listen on vsock")
          : await this.#connection(transport, port, nonce, signal).catch((error: unknown) => error);
      if (signal.aborted) return;
      const trouble = await transport.trouble();
      if (signal.aborted) return;
      this.#reason = trouble ?? messageOf(ended);
      this.#options.onChange();
      if (trouble !== undefined || port === undefined) return;
      await sleep(pauseMs, undefined, { signal, ref: false }).catch(() => {});
      pauseMs = Math.min(pauseMs * 2, LAST_RETRY_MS);
    }
  }

  /** One connection to its end. Always rejects: with why it ended. */
  async #connection(transport: DataTransport, port: number, nonce: string, signal: AbortSignal): Promise<never> {
    const socket = await transport.connect(port, signal);
    const ended = Promise.withResolvers<never>();
    // A failure between two awaits must not count as unhandled.
    ended.promise.catch(() => {});
    const fail = (what: string) => ended.reject(new VolantError("guest_unreachable", what));
    const onAbort = () => fail("the link was closed");
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    // Stays for the socket's whole life: an error without a listener would end the process.
    socket.on("error", (error) => fail(`its vsock connection broke: ${error.message}`));
    socket.once("close", () => fail("its vsock connection was closed"));
    const timer = setTimeout(() => fail("its agent does not greet over vsock"), GREETING_TIMEOUT_MS);
    const synchronised = synchronise(socket, nonce);
    let stopPings = () => {};
    try {
      const http = await Promise.race([synchronised, ended.promise]);
      clearTimeout(timer);
      http.on("error", (error: Error) => fail(`its vsock connection broke: ${error.message}`));
      breakStreams(socket, http, broken);
      http.once("close", () => fail("its vsock connection was closed"));
      http.once("goaway", () => fail("its agent ended the vsock connection"));
      const onSilence = () => fail("its agent does not answer over vsock");
      stopPings = keepAlive(http, this.#options.heartbeatMs, onSilence, () => transport.held);
      this.#http = http;
      this.#reason = undefined;
      this.#options.onChange();
      return await ended.promise;
    } finally {
      clearTimeout(timer);
      stopPings();
      signal.removeEventListener("abort", onAbort);
      if (!signal.aborted) this.#http = undefined;
      transport.whenRunning(() => {
        void synchronised.then(
          (http) => http.destroy(broken()),
          () => {},
        );
        socket.destroy();
      });
    }
  }
}

function broken(): VolantError {
  return new VolantError("guest_unreachable", "the vsock connection to the guest's agent broke");
}
