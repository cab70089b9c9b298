/** What a guest in mode `dhcp` says of its lease, as far as it can be believed. Pure. */
import type { GuestNetworkStatus, LeasePhase } from "../guest/guest-status.ts";
import { broadcastAddress, formatAddress, parseAddress, type Subnet } from "./address.ts";

export interface DhcpLease {
  readonly phase: LeasePhase;
  /** Absent while there is none. */
  readonly address?: number | undefined;
  readonly prefixLength?: number | undefined;
  readonly gateway?: number | undefined;
  readonly server?: number | undefined;
  readonly nameservers: readonly number[];
  readonly domain?: string | undefined;
  readonly obtainedAt?: Date | undefined;
  readonly renewsAt?: Date | undefined;
  readonly rebindsAt?: Date | undefined;
  /** Absent in a lease without an end. */
  readonly expiresAt?: Date | undefined;
  /** Why there is no lease yet, in words. */
  readonly reason?: string | undefined;
}

/** The address that `text` names, if a station can have it: not 0.0.0.0/8, loopback, multicast, reserved or broadcast (RFC 6890, RFC 5771). */
function hostAddress(text: string | undefined): number | undefined {
  const address = text === undefined ? undefined : parseAddress(text);
  if (address === undefined) return undefined;
  const first = address >>> 24;
  return first === 0 || first === 127 || first >= 224 ? undefined : address;
}

/** Whether a station of a subnet of this size can have the address. In a /31 and a /32 there is no address to spare (RFC 3021). */
function fits(address: number, prefixLength: number): boolean {
  if (prefixLength >= 31) return true;
  const subnet: Subnet = { network: address - (address % 2 ** (32 - prefixLength)), prefixLength };
  return address !== subnet.network && address !== broadcastAddress(subnet);
}

function waiting(reason: string | undefined): DhcpLease {
  return { phase: "waiting_for_lease", nameservers: [], reason };
}

/**
 * The lease that a guest reports; undefined before it has reported any.
 *
 * @param refusal why an address can't be the guest's, or undefined: a guest must not pass for someone whose address the host knows
 */
export function dhcpLease(
  network: GuestNetworkStatus | undefined,
  refusal: (address: number) => string | undefined,
): DhcpLease | undefined {
  const lease = network?.lease;
  if (network === undefined || lease === undefined) return undefined;
  const { phase } = lease;
  if (phase === "waiting_for_lease") return waiting(lease.reason);
  const address = hostAddress(network.address);
  const { prefixLength } = network;
  if (!network.applied || address === undefined || prefixLength === undefined || prefixLength < 1) {
    return waiting(network.reason ?? lease.reason);
  }
  if (prefixLength > 32 || !fits(address, prefixLength)) {
    return waiting(`the guest reports ${formatAddress(address)}/${prefixLength}, which no station can have`);
  }
  const refused = refusal(address);
  if (refused !== undefined) return waiting(`the guest reports ${formatAddress(address)}, which is ${refused}`);
  return {
    phase,
    address,
    prefixLength,
    gateway: hostAddress(network.gateway),
    server: hostAddress(lease.server),
    nameservers: lease.nameservers.flatMap((text) => parseAddress(text) ?? []),
    domain: lease.domain,
    obtainedAt: lease.obtainedAt,
    renewsAt: lease.renewsAt,
    rebindsAt: lease.rebindsAt,
    expiresAt: lease.expiresAt,
    reason: lease.reason,
  };
}

/** What of a lease is news when it changes: all but its times, which every renewal moves. One line for people. */
export function leaseText(lease: DhcpLease | undefined): string | undefined {
  if (lease?.address === undefined) return undefined;
  const { address, prefixLength, gateway, server, nameservers, domain } = lease;
  const parts = [
    `address ${formatAddress(address)}/${prefixLength} by DHCP`,
    server === undefined ? "" : `from ${formatAddress(server)}`,
    gateway === undefined ? "" : `gateway ${formatAddress(gateway)}`,
    nameservers.length === 0 ? "" : `name servers ${nameservers.map(formatAddress).join(" ")}`,
    domain === undefined ? "" : `domain ${domain}`,
  ];
  return parts.filter((part) => part !== "").join(", ");
}
