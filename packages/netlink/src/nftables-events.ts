import { AttributeCursor } from "./codec/attributes.ts";
import { Listener, receiveUntil } from "./transport/listener.ts";

/** NETLINK_NETFILTER (netlink(7)), and NFNLGRP_NFTABLES (include/uapi/linux/netfilter/nfnetlink.h). */
const NETLINK_NETFILTER = 12;
const NFTABLES_GROUP = 7;
/** A thousand entries in one transaction are some hundred KiB of news; what does not fit is an overrun, and just as much news. */
const RECEIVE_BUFFER_BYTES = 1024 * 1024;

/** NFNL_SUBSYS_NFTABLES, in a message's type above NFT_MSG_*; NFT_MSG_NEWGEN, NFTA_GEN_PROC_PID (include/uapi/linux/netfilter/nf_tables.h). */
const SUBSYSTEM = 10;
const NEW_GENERATION = (SUBSYSTEM << 8) | 15;
const GENERATION_PID = 2;
/** struct nfgenmsg, which begins with the family. */
const GENERIC_HEADER_BYTES = 4;
/** The first attribute of whatever is told of, but of a generation: NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, NFTA_SET_ELEM_LIST_TABLE, NFTA_OBJ_TABLE, … */
const TABLE_NAME = 1;

/** A table of nftables. `family`: NFPROTO_IPV4, 2; NFPROTO_INET, 1; NFPROTO_BRIDGE, 7 (include/uapi/linux/netfilter.h). */
export interface NftablesTable {
  readonly family: number;
  readonly name: string;
}

/**
 * A change of nftables. `by`: the process that made it, as the kernel's first pid namespace numbers it; undefined where changes were missed. `tables`: those that it changed something in;
 * undefined where it may be any.
 */
export interface NftablesChange {
  readonly by: number | undefined;
  readonly tables: readonly NftablesTable[] | undefined;
}

/**
 * Yields whenever somebody, this process and its children included, changed nftables in this network namespace, until the signal aborts: not what was changed, but in which tables.
 * In force from the first `next` on. The kernel ends every transaction with a new generation, which says whose it was.
 */
export async function* watchNftables(signal: AbortSignal): AsyncGenerator<NftablesChange, void, undefined> {
  const listener = new Listener([NFTABLES_GROUP], RECEIVE_BUFFER_BYTES, NETLINK_NETFILTER);
  const news = new NftablesNews();
  for await (const received of receiveUntil(listener, signal)) {
    if (received === "overrun") {
      yield news.missed();
      continue;
    }
    for (const { type, body } of received) {
      const change = news.hear(type, body);
      if (change !== undefined) yield change;
    }
  }
}

/** What the kernel tells of transactions, put together. */
export class NftablesNews {
  #tables = new Map<string, NftablesTable>();
  /** What is known of the transaction under way is all of it. */
  #whole = true;

  /** Something was not told: what comes next may be the end of a transaction. */
  missed(): NftablesChange {
    this.#tables = new Map();
    this.#whole = false;
    return { by: undefined, tables: undefined };
  }

  /** One message: what it ends, if it ends something. @throws Error with code EBADMSG */
  hear(type: number, body: Buffer): NftablesChange | undefined {
    if (type >> 8 !== SUBSYSTEM) return undefined;
    if (type !== NEW_GENERATION) {
      this.#add(body);
      return undefined;
    }
    const tables = this.#whole ? [...this.#tables.values()] : undefined;
    this.#tables = new Map();
    this.#whole = true;
    return { by: generationPid(body), tables };
  }

  #add(body: Buffer): void {
    const attributes = new AttributeCursor(body, GENERIC_HEADER_BYTES, body.length);
    while (attributes.next()) {
      if (attributes.type !== TABLE_NAME) continue;
      const table = { family: body.readUInt8(0), name: attributes.string() };
      this.#tables.set(`${table.family} ${table.name}`, table);
      return;
    }
  }
}

function generationPid(body: Buffer): number | undefined {
  const attributes = new AttributeCursor(body, GENERIC_HEADER_BYTES, body.length);
  while (attributes.next()) if (attributes.type === GENERATION_PID) return attributes.u32be();
  return undefined;
}
