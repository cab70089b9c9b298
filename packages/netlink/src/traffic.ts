import {
  type BlockFilter,
  decodeBlockFilter,
  decodeIngress,
  type NewBlockFilter,
  RTM_DELQDISC,
  RTM_DELTFILTER,
  RTM_GETQDISC,
  RTM_GETTFILTER,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  writeBlockFilter,
  writeBlockKey,
  writeIngress,
  writeIngressKey,
  writeQdiscRequest,
} from "./codec/traffic.ts";
import { NLM_F_CREATE, NLM_F_EXCL } from "./codec/message.ts";
import { NetlinkError } from "./errors.ts";
import { linkLabel, type LinkRef, resolveIndex, type Session } from "./session.ts";
import { checkNumber } from "./validate.ts";

const MAX_U32 = 0xffff_ffff;

/**
 * What happens to frames that come in by a link, before a bridge or the host sees them. Links share filters through a block, a
 * number of the namespace (tc(8), "BLOCKS"): a block lives as long as a link is bound to it, and its filters with it.
 */
export class Traffic {
  readonly #session: Session;

  constructor(session: Session) {
    this.#session = session;
  }

  /** Binds what comes in by a link to a block. EEXIST when the link has an ingress queueing discipline already. */
  async bindIngress(link: LinkRef, block: number): Promise<void> {
    const operation = "bind ingress";
    checkNumber(operation, linkLabel(link), "a block", block, [1, MAX_U32]);
    const index = await resolveIndex(link, operation);
    await this.#session.socket.change({
      operation,
      object: linkLabel(link),
      type: RTM_NEWQDISC,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      write: (writer) => writeIngress(writer, index, block),
    });
  }

  /** Takes a link's ingress queueing discipline away, with the link's own filters. ENOENT when there is none. */
  async unbindIngress(link: LinkRef): Promise<void> {
    const operation = "unbind ingress";
    const index = await resolveIndex(link, operation);
    await this.#session.socket.change({
      operation,
      object: linkLabel(link),
      type: RTM_DELQDISC,
      write: (writer) => writeIngressKey(writer, index),
    });
  }

  /** The links that have an ingress queueing discipline, by index, each with the block that it is bound to, if any. */
  async ingressBlocks(): Promise<ReadonlyMap<number, number | undefined>> {
    const found = await this.#session.socket.dump(
      { operation: "list ingress", type: RTM_GETQDISC, acceptInterrupted: true, write: writeQdiscRequest },
      (message) => (message.type === RTM_NEWQDISC ? decodeIngress(message.body) : undefined),
    );
    return new Map(found.map(({ link, block }) => [link, block]));
  }

  /**
   * A block's filters; none where nothing is bound to the block. Those of another kind than {@link addFilter} makes have an empty
   * program and no tag, and may be listed more than once.
   */
  async filters(block: number): Promise<BlockFilter[]> {
    const write = (writer: Parameters<typeof writeBlockKey>[0]) => writeBlockKey(writer, block);
    try {
      return await this.#session.socket.dump(
        { operation: "list filters", object: String(block), type: RTM_GETTFILTER, write },
        (message) => (message.type === RTM_NEWTFILTER ? decodeBlockFilter(message.body) : undefined),
      );
    } catch (error) {
      if (error instanceof NetlinkError && error.code === "EINVAL") return [];
      throw error;
    }
  }

  /** Adds a filter. EEXIST when its priority is taken, EINVAL when nothing is bound to the block. */
  async addFilter(block: number, filter: NewBlockFilter): Promise<void> {
    const operation = "add filter";
    checkNumber(operation, String(block), "a priority", filter.priority, [1, 0xffff]);
    await this.#session.socket.change({
      operation,
      object: String(block),
      type: RTM_NEWTFILTER,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      write: (writer) => writeBlockFilter(writer, block, filter),
    });
  }

  /** Removes all filters of a block, whoever made them. */
  async clearFilters(block: number): Promise<void> {
    await this.#session.socket.change({
      operation: "remove filters",
      object: String(block),
      type: RTM_DELTFILTER,
      write: (writer) => writeBlockKey(writer, block),
    });
  }
}
