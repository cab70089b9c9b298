import { AttributeCursor } from "./codec/attributes.ts";
import { Listener, receiveUntil } from "./transport/listener.ts";

/** RTNLGRP_IPV4_NETCONF, RTM_NEWNETCONF (include/uapi/linux/rtnetlink.h). */
const IPV4_NETCONF_GROUP = 24;
const NEW_NETCONF = 80;
/** NETCONFA_IFINDEX, NETCONFA_FORWARDING; and what stands for an index (include/uapi/linux/netconf.h). */
const NETCONF_IFINDEX = 1;
const NETCONF_FORWARDING = 2;
const ALL_LINKS = -1;
const LATER_LINKS = -2;
/** struct netconfmsg, aligned. */
const HEADER_BYTES = 4;
/** News of a thousand links that come; what does not fit is an overrun, and just as much news. */
const RECEIVE_BUFFER_BYTES = 256 * 1024;

/** IPv4 forwarding of a link, by its index; of `all`, which is net.ipv4.ip_forward; or of those that come `later`. `missed`: news was lost. */
export type ForwardingChange =
  | { readonly link: number | "all" | "later"; readonly on: boolean }
  | { readonly link: "missed" };

/**
 * Yields whenever IPv4 forwarding is turned on or off in this network namespace, and for each link that comes, until the signal aborts. In force from
 * the first `next` on.
 */
export async function* watchForwarding(signal: AbortSignal): AsyncGenerator<ForwardingChange, void, undefined> {
  const listener = new Listener([IPV4_NETCONF_GROUP], RECEIVE_BUFFER_BYTES);
  for await (const received of receiveUntil(listener, signal)) {
    if (received === "overrun") yield { link: "missed" };
    else yield* received.flatMap(({ type, body }) => (type === NEW_NETCONF ? changeOf(body) : []));
  }
}

function changeOf(body: Buffer): ForwardingChange[] {
  let index: number | undefined;
  let on: boolean | undefined;
  const attributes = new AttributeCursor(body, HEADER_BYTES, body.length);
  while (attributes.next()) {
    if (attributes.type === NETCONF_IFINDEX) index = attributes.i32();
    else if (attributes.type === NETCONF_FORWARDING) on = attributes.i32() !== 0;
  }
  if (index === undefined || on === undefined) return [];
  return [{ link: index === ALL_LINKS ? "all" : index === LATER_LINKS ? "later" : index, on }];
}
