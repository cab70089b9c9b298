/** Per-link counters: struct rtnl_link_stats64 (include/uapi/linux/if_link.h) and RTM_GETSTATS. */
import { badMessage } from "../errors.ts";
import { AttributeCursor } from "./attributes.ts";
import type { MessageWriter } from "./writer.ts";

export const RTM_NEWSTATS = 92;
export const RTM_GETSTATS = 94;
const IFLA_STATS_LINK_64 = 1;
/** IFLA_STATS_FILTER_BIT(IFLA_STATS_LINK_64). */
const LINK_64_FILTER = 1;
/** struct if_stats_msg: family, padding, ifindex, filter_mask. */
const BODY_BYTES = 12;

/** The order of the counters in struct rtnl_link_stats64. */
const COUNTERS = [
  "rxPackets",
  "txPackets",
  "rxBytes",
  "txBytes",
  "rxErrors",
  "txErrors",
  "rxDropped",
  "txDropped",
  "multicast",
  "collisions",
  "rxLengthErrors",
  "rxOverErrors",
  "rxCrcErrors",
  "rxFrameErrors",
  "rxFifoErrors",
  "rxMissedErrors",
  "txAbortedErrors",
  "txCarrierErrors",
  "txFifoErrors",
  "txHeartbeatErrors",
  "txWindowErrors",
  "rxCompressed",
  "txCompressed",
] as const;

/**
 * A link's counters since it was made, as the host sees them: on a tap, `rx` is what the guest sent and `tx` what it was
 * sent. Numbers, exact up to 2^53.
 */
export type LinkCounters = Readonly<Record<(typeof COUNTERS)[number], number>>;

/** Reads the counters out of the current attribute. Newer kernels append fields, older ones have fewer: those read 0. */
export function readLinkCounters(attribute: AttributeCursor): LinkCounters {
  const present = Math.floor(attribute.size / 8);
  const counters: Partial<Record<(typeof COUNTERS)[number], number>> = {};
  for (const [index, name] of COUNTERS.entries()) counters[name] = index < present ? attribute.u64(index) : 0;
  return counters as LinkCounters;
}

/** The attribute value for counters: what the kernel would send. */
export function writeLinkCounters(writer: MessageWriter, counters: LinkCounters): void {
  for (const name of COUNTERS) {
    writer.u32(counters[name] % 0x1_0000_0000).u32(Math.floor(counters[name] / 0x1_0000_0000));
  }
}

/** The body of RTM_GETSTATS for the counters of one link, or of all (index 0, in a dump). */
export function encodeStatsRequest(writer: MessageWriter, index: number): void {
  writer.u32(0).u32(index).u32(LINK_64_FILTER);
}

/** Decodes the body of RTM_NEWSTATS. */
export function decodeStats(body: Buffer): { readonly index: number; readonly counters: LinkCounters | undefined } {
  if (body.length < BODY_BYTES) throw badMessage(`if_stats_msg of ${body.length} bytes`);
  const attributes = new AttributeCursor(body, BODY_BYTES, body.length);
  let counters: LinkCounters | undefined;
  while (attributes.next()) {
    if (attributes.type === IFLA_STATS_LINK_64) counters = readLinkCounters(attributes);
  }
  return { index: body.readUInt32LE(4), counters };
}
