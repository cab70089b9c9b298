/** Whose address a request has. Pure. */
import ipaddr from "ipaddr.js";
import { isWithin, type Range } from "./access.ts";

/** What a workload is told of how a request has come. */
export interface Forwarded {
  /** `X-Forwarded-For`: the addresses on the way, the last one this server's peer. */
  readonly for: string;
  readonly proto: "http" | "https";
}

/** An address in its one form; undefined for what is none. An IPv4 address that a dual-stack socket tells as IPv6 is IPv4. */
function plain(text: string | undefined): string | undefined {
  return text !== undefined && ipaddr.isValid(text) ? ipaddr.process(text).toString() : undefined;
}

/**
 * The client's address: the socket's peer or, where that is a proxy that was named as trusted, the last one in `X-Forwarded-For` that is no such proxy.
 * Anybody else's word in that field is not listened to: whoever sends it writes it.
 */
export function clientAddress(
  proxies: readonly Range[],
  peer: string | undefined,
  forwardedFor: string | string[] | undefined,
): string {
  const own = plain(peer) ?? "unknown";
  if (!isWithin(proxies, own)) return own;
  const hops = String(forwardedFor ?? "")
    .split(",")
    .map((hop) => hop.trim())
    .filter((hop) => hop !== "");
  let last = own;
  for (const hop of hops.toReversed()) {
    const address = plain(hop);
    // A proxy that writes nonsense is asked no further.
    if (address === undefined) return "unknown";
    last = address;
    if (!isWithin(proxies, address)) break;
  }
  return last;
}

/** What the proxy says of a request. What the request itself says of that counts only from a trusted proxy. */
export function forwardedOf(
  proxies: readonly Range[],
  peer: string | undefined,
  headers: Readonly<Record<string, unknown>>,
  isEncrypted: boolean,
): Forwarded {
  const own = plain(peer) ?? "unknown";
  const isTrusted = isWithin(proxies, own);
  const { "x-forwarded-for": before, "x-forwarded-proto": proto } = headers;
  return {
    for: isTrusted && typeof before === "string" ? `${before}, ${own}` : own,
    proto: (isTrusted && proto === "https") || isEncrypted ? "https" : "http",
  };
}
