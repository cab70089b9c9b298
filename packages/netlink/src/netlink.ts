import { Addresses } from "./addresses.ts";
import { type NetlinkEvent, type SubscribeOptions, subscribe, type Topic } from "./events.ts";
import { Links } from "./links.ts";
import { Neighbours } from "./neighbours.ts";
import { Routes } from "./routes.ts";
import type { Session } from "./session.ts";
import { Taps } from "./taps.ts";
import { Traffic } from "./traffic.ts";
import { RequestSocket } from "./transport/socket.ts";

/**
 * rtnetlink in the network namespace that the process is in when `open` is called. Calls may overlap, and those that do
 * may reach the kernel in any order: await one before the next where the order matters. Deleting links holds nothing up.
 */
export class Netlink {
  readonly links: Links;
  readonly addresses: Addresses;
  readonly routes: Routes;
  readonly neighbours: Neighbours;
  readonly taps: Taps;
  readonly traffic: Traffic;
  readonly #session: Session;
  readonly #closing = new AbortController();

  private constructor(session: Session) {
    this.#session = session;
    this.links = new Links(session);
    this.addresses = new Addresses(session);
    this.routes = new Routes(session);
    this.neighbours = new Neighbours(session);
    this.taps = new Taps(session);
    this.traffic = new Traffic(session);
  }

  /** Opens a socket. EUNSUPPORTED off Linux. Needs no privilege to read; changes need CAP_NET_ADMIN. */
  static async open(): Promise<Netlink> {
    const session = { socket: new RequestSocket(), slowSocket: new RequestSocket() };
    session.socket.open();
    return new Netlink(session);
  }

  /**
   * Changes of the tables named by `topics`, from the moment of this call on, until `signal` aborts, `close` is called
   * or the loop over them ends.
   */
  subscribe(topics: readonly Topic[], options: SubscribeOptions = {}): AsyncIterableIterator<NetlinkEvent> {
    const signals = options.signal === undefined ? [this.#closing.signal] : [this.#closing.signal, options.signal];
    return subscribe(topics, { ...options, signal: AbortSignal.any(signals) });
  }

  /** Ends the subscriptions, waits for requests that are running, and closes. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all([this.#session.socket.close(), this.#session.slowSocket.close()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
