/** LAN bridges: what a network card has that moves to a bridge with it. No I/O. */
import { createHash } from "node:crypto";
import { Type, type Static } from "typebox";
import type { ObservedLink } from "./observed.ts";

const closed = { additionalProperties: false } as const;

/** An address as it is added to a link, whichever that is. */
export const LanAddress = Type.Object(
  {
    family: Type.Union([Type.Literal("inet"), Type.Literal("inet6")]),
    address: Type.String(),
    prefixLength: Type.Integer(),
    peer: Type.Optional(Type.String()),
    broadcast: Type.Optional(Type.String()),
    /** One that starts with `:` follows the link's name. */
    label: Type.Optional(Type.String()),
    scope: Type.Union([Type.String(), Type.Integer()]),
    flags: Type.Array(Type.String()),
    metric: Type.Optional(Type.Integer()),
  },
  closed,
);
export type LanAddress = Static<typeof LanAddress>;

/** A route by a link, whichever that is. */
export const LanRoute = Type.Object(
  {
    family: Type.Union([Type.Literal("inet"), Type.Literal("inet6")]),
    destination: Type.String(),
    gateway: Type.Optional(Type.String()),
    preferredSource: Type.Optional(Type.String()),
    metric: Type.Optional(Type.Integer()),
    mtu: Type.Optional(Type.Integer()),
    table: Type.Integer(),
    protocol: Type.Union([Type.String(), Type.Integer()]),
    scope: Type.Union([Type.String(), Type.Integer()]),
    type: Type.String(),
    flags: Type.Array(Type.String()),
  },
  closed,
);
export type LanRoute = Static<typeof LanRoute>;

/** A bridge that VMs in mode `dhcp` may join, as a set-up recorded it. */
export const RecordedLan = Type.Object(
  {
    bridge: Type.String(),
    /** The network card that set-up put on a bridge of its making; null for a bridge that someone else made, which is left as it is. */
    card: Type.Union([
      Type.Null(),
      Type.Object(
        {
          name: Type.String(),
          mac: Type.String(),
          /** Bytes. */
          mtu: Type.Integer(),
          /** Whether it was up. */
          up: Type.Boolean(),
          /** In the order in which the card had them: the first of a subnet is the one that packets leave with. */
          addresses: Type.Array(LanAddress),
          routes: Type.Array(LanRoute),
        },
        closed,
      ),
    ]),
  },
  closed,
);
export type RecordedLan = Static<typeof RecordedLan>;
export type LanCard = NonNullable<RecordedLan["card"]>;

/** What a set-up is asked for: a bridge, and the card to make it on; without one it must exist. */
export interface LanRequest {
  readonly bridge: string;
  readonly card: string | null;
}

/** A link with all that moves with it. What the kernel makes by itself (link-local addresses, routes of addresses) does not. */
export interface ObservedStation {
  /** Bytes. */
  readonly mtu: number;
  readonly addresses: readonly LanAddress[];
  readonly routes: readonly LanRoute[];
  /** `disable_ipv6` of the link; undefined where the kernel has no IPv6. */
  readonly ipv6Disabled: string | undefined;
  /** Reasons why it can't be moved to a bridge, as sentences about "it"; only for cards that are to be taken. */
  readonly obstacles: readonly LanObstacle[];
}

export interface LanObstacle {
  readonly message: string;
  readonly hint?: string;
}

/** The alias that marks a LAN bridge as made by the set-up of that work folder. */
export function lanAlias(settings: { readonly workDir: string }): string {
  return `volant:lan:${createHash("sha256").update(settings.workDir).digest("hex").slice(0, 8)}`;
}

/** The setting that turns IPv6 off on one link (Documentation/networking/ip-sysctl.rst, disable_ipv6). */
export function disableIpv6Name(link: string): string {
  return `net/ipv6/conf/${link}/disable_ipv6`;
}

export function addressKey({ address, prefixLength, peer = "" }: LanAddress): string {
  return `${address}/${prefixLength} ${peer}`;
}

/** Two routes of the same key can't be told apart by the kernel, other than by their link. */
export function routeKey({ family, table, destination, metric = 0 }: LanRoute): string {
  return `${family} ${table} ${destination} ${metric}`;
}

export function sameRoute(a: LanRoute, b: LanRoute): boolean {
  return routeText(a) === routeText(b);
}

function routeText(route: LanRoute): string {
  const { family, destination, gateway, preferredSource, metric, mtu, table, protocol, scope, type, flags } = route;
  return JSON.stringify([
    family,
    destination,
    gateway,
    preferredSource,
    metric,
    mtu,
    table,
    protocol,
    scope,
    type,
    flags,
  ]);
}

/** A gateway must be reachable before a route leads through it. */
export function inOrderOfReach(routes: readonly LanRoute[]): LanRoute[] {
  return [
    ...routes.filter(({ gateway }) => gateway === undefined),
    ...routes.filter(({ gateway }) => gateway !== undefined),
  ];
}

/** Whether the link is the LAN bridge that this set-up made, or was making when it ended: then it has its MAC and no mark yet. */
export function isOwnLanBridge(
  link: ObservedLink,
  settings: { readonly workDir: string },
  madeWithMac: string | undefined,
): boolean {
  if (link.kind !== "bridge") return false;
  if (link.alias === lanAlias(settings)) return true;
  return madeWithMac === link.mac && (link.alias ?? "") === "";
}
