import { AttributeCursor } from "./codec/attributes.ts";
import { Listener, receiveUntil } from "./transport/listener.ts";

/** NETLINK_NETFILTER (netlink(7)), and NFNLGRP_NFTABLES (include/uapi/linux/netfilter/nfnetlink.h). */
const NETLINK_NETFILTER = 12;
const NFTABLES_GROUP = 7;
/** A thousand entries in one transaction are some hundred KiB of news; what does not fit is an overrun, and just as much news. */
const RECEIVE_BUFFER_BYTES = 1024 * 1024;

/** NFNL_SUBSYS_NFTABLES and NFT_MSG_NEWGEN, NFTA_GEN_PROC_PID (include/uapi/linux/netfilter/nf_tables.h). */
const NEW_GENERATION = (10 << 8) | 15;
const GENERATION_PID = 2;
/** struct nfgenmsg. */
const GENERIC_HEADER_BYTES = 4;

/** A change of nftables. `by`: the process that made it, as the kernel's first pid namespace numbers it; undefined where changes were missed. */
export interface NftablesChange {
  readonly by: number | undefined;
}

/**
 * Yields whenever somebody, this process and its children included, changed nftables in this network namespace, until the signal aborts: not what was
 * changed, only that something was. In force from the first `next` on. The kernel ends every transaction with a new generation, which says whose it was.
 */
export async function* watchNftables(signal: AbortSignal): AsyncGenerator<NftablesChange, void, undefined> {
  const listener = new Listener([NFTABLES_GROUP], RECEIVE_BUFFER_BYTES, NETLINK_NETFILTER);
  for await (const received of receiveUntil(listener, signal)) {
    if (received === "overrun") yield { by: undefined };
    else yield* received.filter(({ type }) => type === NEW_GENERATION).map(({ body }) => ({ by: generationPid(body) }));
  }
}

function generationPid(body: Buffer): number | undefined {
  const attributes = new AttributeCursor(body, GENERIC_HEADER_BYTES, body.length);
  while (attributes.next()) if (attributes.type === GENERATION_PID) return attributes.u32be();
  return undefined;
}
