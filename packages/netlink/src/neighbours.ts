import type { IpFamily } from "./codec/ip-text.ts";
import { NLM_F_CREATE, NLM_F_REPLACE } from "./codec/message.ts";
import {
  decodeNeighbour,
  type Neighbour,
  type NeighbourFlag,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
  writeNeighbour,
  writeNeighbourRequest,
} from "./codec/neighbour.ts";
import { type LinkRef, resolveIndex, type Session } from "./session.ts";
import { checkIp, checkMac } from "./validate.ts";

export interface NeighbourListOptions {
  readonly link?: LinkRef;
  readonly family?: IpFamily;
}

export interface NeighbourSet {
  readonly link: LinkRef;
  readonly address: string;
  readonly mac: string;
  /** True keeps the entry until it is deleted or its link goes down; false makes one that the kernel verifies in time. */
  readonly permanent?: boolean;
  readonly flags?: readonly NeighbourFlag[];
}

export type NeighbourKey = Pick<NeighbourSet, "link" | "address">;

/** Which link-layer address an IP address is reached by: the ARP and the IPv6 neighbour table. */
export class Neighbours {
  readonly #session: Session;

  constructor(session: Session) {
    this.#session = session;
  }

  /** Every entry in any state, those that `ip neigh` hides by default (none, noarp) included. */
  async list(options: NeighbourListOptions = {}): Promise<Neighbour[]> {
    const operation = "list neighbours";
    const index = options.link === undefined ? 0 : await resolveIndex(options.link, operation);
    const { family } = options;
    const neighbours = await this.#session.socket.dump(
      { operation, type: RTM_GETNEIGH, write: (writer) => writeNeighbourRequest(writer, family, index) },
      (message) => (message.type === RTM_NEWNEIGH ? decodeNeighbour(message.body) : undefined),
    );
    return neighbours.filter(
      (neighbour) => (index === 0 || neighbour.link === index) && (family === undefined || neighbour.family === family),
    );
  }

  /** Makes an entry, or replaces the one that is there. Permanent unless `permanent` is false. */
  async set(neighbour: NeighbourSet): Promise<void> {
    const operation = "set neighbour";
    const { address, mac, permanent = true, flags } = neighbour;
    checkIp(operation, address);
    checkMac(operation, address, mac);
    const link = await resolveIndex(neighbour.link, operation, address);
    await this.#session.socket.change({
      operation,
      object: address,
      type: RTM_NEWNEIGH,
      flags: NLM_F_CREATE | NLM_F_REPLACE,
      write: (writer) =>
        writeNeighbour(writer, { link, address, mac, state: permanent ? "permanent" : "stale", flags }),
    });
  }

  /** Removes an entry. ENOENT when there is none. */
  async delete(neighbour: NeighbourKey): Promise<void> {
    const operation = "delete neighbour";
    const { address } = neighbour;
    checkIp(operation, address);
    const link = await resolveIndex(neighbour.link, operation, address);
    await this.#session.socket.change({
      operation,
      object: address,
      type: RTM_DELNEIGH,
      write: (writer) => writeNeighbour(writer, { link, address }),
    });
  }
}
