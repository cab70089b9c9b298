/** Who may talk to the API: pure decisions on the client's address, and the Host and Origin headers. */
import { VolantError } from "@volant/contract";
import ipaddr from "ipaddr.js";
import type { ApiConfig, Verdict } from "./api-config.ts";

/** A network, and the length of its prefix. */
export type Range = [ipaddr.IPv4 | ipaddr.IPv6, number];

/**
 * Networks in CIDR notation; a single address stands for itself.
 *
 * @throws VolantError `invalid`, naming the setting
 */
export function parseCidrs(setting: string, cidrs: readonly string[]): readonly Range[] {
  return cidrs.map((cidr) => {
    try {
      if (cidr.includes("/")) return ipaddr.parseCIDR(cidr);
      const address = ipaddr.parse(cidr);
      return [address, address.kind() === "ipv4" ? 32 : 128];
    } catch {
      throw new VolantError("invalid", `${setting} holds ${JSON.stringify(cidr)}, which is no network like 10.0.0.0/8`);
    }
  });
}

/** Whether an address is in one of the networks. An IPv4 peer of a dual-stack socket (`::ffff:a.b.c.d`) counts as IPv4. */
export function isWithin(ranges: readonly Range[], peer: string | undefined): boolean {
  const address = peer !== undefined && ipaddr.isValid(peer) ? ipaddr.process(peer) : undefined;
  return (
    address !== undefined &&
    ranges.some(([network, bits]) => network.kind() === address.kind() && address.match(network, bits))
  );
}

/** Refuses a client outside the allowed networks. */
export function checkPeer(ranges: readonly Range[], peer: string | undefined): Verdict {
  return ranges.length === 0 || isWithin(ranges, peer)
    ? undefined
    : new VolantError("forbidden", `clients at ${peer ?? "an unknown address"} may not use this API`, {
        hint: "VOLANT_API_ALLOW_CIDR on the host lists the networks that may",
      });
}

/** Host name of a Host header's value (RFC 9110 section 7.2), in lower case and without brackets and port; undefined when it has none. */
export function hostName(host: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{1,5})?$/.exec(host.toLowerCase());
  return match?.[1] ?? match?.[2];
}

function advertisedName(advertise: string | undefined): string | undefined {
  if (advertise === undefined) return undefined;
  return hostName(advertise.replace(/^https?:\/\//, "").replace(/\/.*$/, ""));
}

/**
 * Refuses a Host header that names a machine this API was not told it is: a page whose name was re-bound to a loopback
 * address sends its own name here. An IP address is safe, since a name is what gets re-bound.
 */
export function checkHost(config: ApiConfig, host: string | undefined): Verdict {
  const name = host === undefined ? undefined : hostName(host);
  if (name !== undefined) {
    if (name === "localhost" || name.endsWith(".localhost") || ipaddr.isValid(name)) return undefined;
    if (name === config.listenHost.toLowerCase() || name === advertisedName(config.advertise)) return undefined;
  }
  return new VolantError(
    "forbidden",
    `this API does not go by the name in the Host header, ${JSON.stringify(host ?? "")}`,
    {
      hint: "use its address, or set VOLANT_API_ADVERTISE on the host to the name that clients use",
    },
  );
}

export interface OriginDecision {
  readonly verdict: Verdict;
  /** Value for Access-Control-Allow-Origin. */
  readonly allowOrigin?: string;
}

/** Refuses pages of other origins unless they are allowed. A request without Origin comes from no page, or from a same-origin read. */
export function checkOrigin(config: ApiConfig, origin: string | undefined, host: string | undefined): OriginDecision {
  if (origin === undefined) return { verdict: undefined };
  if (config.corsOrigins.includes("*")) return { verdict: undefined, allowOrigin: "*" };
  const asked = origin.toLowerCase();
  if (config.corsOrigins.some((allowed) => allowed.toLowerCase().replace(/\/$/, "") === asked)) {
    return { verdict: undefined, allowOrigin: origin };
  }
  // Behind a proxy that speaks TLS, the page's scheme is https, and this server's http.
  if (host !== undefined && [`http://${host}`, `https://${host}`].includes(asked)) return { verdict: undefined };
  return {
    verdict: new VolantError("forbidden", `pages of ${JSON.stringify(origin)} may not use this API`, {
      hint: "VOLANT_CORS_ORIGINS on the host lists the origins that may",
    }),
  };
}
