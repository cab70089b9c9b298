/** Network cards and LAN bridges with all that moves with them, through netlink. */
import type { Address, Link, Route } from "@volant/netlink";
import { blockOf, formatBlock, parseIpv4 } from "../ipv4.ts";
import type { ObserveRequest } from "../setup/host-port.ts";
import { disableIpv6Name, routeKey } from "../setup/lan.ts";
import type { LanAddress, LanObstacle, LanRoute, ObservedStation } from "../setup/lan.ts";
import { findCardOwner, isWireless } from "./card-owner.ts";
import { isNetlinkError, openNetlink } from "./netlink.ts";
import { readSysctl } from "./sysctl.ts";

/** RT_TABLE_LOCAL: the kernel keeps it by itself. */
const LOCAL_TABLE = 255;
/** What of an address' flags is somebody's wish, and not its state. */
const WISHES: ReadonlySet<string> = new Set(["noPrefixRoute", "noDuplicateDetection", "homeAddress"]);
/** Kinds of links that take the card's frames before a bridge could. */
const TAKERS: ReadonlySet<string> = new Set(["macvlan", "macvtap", "ipvlan", "ipvtap"]);

interface Tables {
  readonly links: readonly Link[];
  readonly addresses: readonly Address[];
  readonly routes: readonly Route[];
}

/** The links of these names that are there. None where the kernel does not say. */
export async function observeStations(
  wanted: ObserveRequest["stations"],
): Promise<Readonly<Record<string, ObservedStation>>> {
  if (wanted.length === 0) return {};
  let tables: Tables;
  try {
    await using netlink = await openNetlink();
    tables = {
      links: await netlink.links.list({ stats: false }),
      addresses: await netlink.addresses.list(),
      routes: await netlink.routes.list({ table: "all" }),
    };
  } catch (error) {
    if (isNetlinkError(error)) return {};
    throw error;
  }
  const stations: Record<string, ObservedStation> = {};
  for (const { name, judge } of wanted) {
    const link = tables.links.find((other) => other.name === name);
    if (link === undefined) continue;
    const obstacles = judge ? [...(await judgeCard(link)), ...judgeTables(link, tables)] : [];
    stations[name] = {
      mtu: link.mtu,
      ...describeStation(link, tables),
      ipv6Disabled: await readSysctl(disableIpv6Name(name)),
      obstacles,
    };
  }
  return stations;
}

/** What of a link's addresses and routes was given to it, and so moves with it. */
export function describeStation(
  link: Link,
  { addresses, routes }: Tables,
): Pick<ObservedStation, "addresses" | "routes"> {
  const own = addresses.filter((address) => address.link === link.index && !isTransient(address, link));
  const prefixes = new Set(own.flatMap((address) => prefixOf(address) ?? []));
  return {
    addresses: own.map((address) => describeAddress(address, link)),
    routes: routes
      .filter((route) => route.link === link.index && !isAutomatic(route, prefixes))
      .map((route) => describeRoute(route)),
  };
}

/** Made by the kernel: link-local ones, and what routers announce. */
function isTransient(address: Address, link: Link): boolean {
  if (address.family === "inet") return false;
  if (address.validSeconds !== undefined || address.flags.includes("manageTemporary")) return true;
  if (!/^fe[89ab]/.test(address.address)) return false;
  return link.addressGeneration !== "eui64" || address.address === eui64(link.mac ?? "");
}

/** The link-local address that the kernel makes of a MAC (RFC 4291, appendix A). */
export function eui64(mac: string): string {
  const bytes = mac.split(":").map((byte) => Number.parseInt(byte, 16));
  if (bytes.length !== 6) return "";
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = bytes;
  const groups = [
    [a ^ 2, b],
    [c, 0xff],
    [0xfe, d],
    [e, f],
  ].map(([high = 0, low = 0]) => high * 256 + low);
  // `::` stands for all the zeroes after fe80 (RFC 5952); the second group is never zero.
  const shown = groups[0] === 0 ? groups.slice(1) : groups;
  return `fe80::${shown.map((group) => group.toString(16)).join(":")}`;
}

/** The network of an IPv4 address that the kernel makes a route for. */
function prefixOf({ family, address, peer, prefixLength, flags }: Address): string | undefined {
  const number = family === "inet" ? parseIpv4(peer ?? address) : undefined;
  if (number === undefined || flags.includes("noPrefixRoute")) return undefined;
  return formatBlock(blockOf(number, prefixLength));
}

/** Routes that come and go with addresses and links, or with what routers announce. */
function isAutomatic(route: Route, prefixes: ReadonlySet<string>): boolean {
  if (route.table === LOCAL_TABLE || route.protocol === "ra" || route.protocol === "redirect") return true;
  if (route.protocol !== "kernel") return false;
  return route.family === "inet6" || prefixes.has(route.destination);
}

function describeAddress(address: Address, link: Link): LanAddress {
  const { family, prefixLength, peer, broadcast, label, scope, flags, metric } = address;
  const shown = label?.startsWith(`${link.name}:`) === true ? label.slice(link.name.length) : label;
  return {
    family,
    address: address.address,
    prefixLength,
    ...(peer === undefined ? {} : { peer }),
    ...(broadcast === undefined ? {} : { broadcast }),
    ...(shown === undefined || shown === link.name ? {} : { label: shown }),
    scope,
    flags: flags.filter((flag) => WISHES.has(flag)),
    ...(metric === undefined ? {} : { metric }),
  };
}

function describeRoute(route: Route): LanRoute {
  const { family, destination, gateway, preferredSource, metric, mtu, table, protocol, scope, type, flags } = route;
  return {
    family,
    destination,
    ...(gateway === undefined ? {} : { gateway }),
    ...(preferredSource === undefined ? {} : { preferredSource }),
    ...(metric === undefined ? {} : { metric }),
    ...(mtu === undefined ? {} : { mtu }),
    table,
    protocol,
    scope,
    type,
    flags: flags.filter((flag) => flag === "onLink"),
  };
}

const BY_HAND =
  "set it up by hand, or make the bridge in the host's network configuration and use it: volar setup --lan-bridge <bridge>";

async function judgeCard(link: Link): Promise<LanObstacle[]> {
  const { name, flags, mac } = link;
  if (flags.loopback || mac === undefined || mac.split(":").length !== 6) {
    return [{ message: `${name} is no Ethernet card, and a bridge takes no other` }];
  }
  if (await isWireless(link)) {
    const hint = "use a wired card; guests of the managed bridge reach the LAN through this host";
    return [{ message: `${name} is a Wi-Fi card: an access point takes no frames from the MACs of guests`, hint }];
  }
  const owner = await findCardOwner(link);
  return owner === undefined ? [] : [owner];
}

function judgeTables(link: Link, { links, addresses, routes }: Tables): LanObstacle[] {
  const obstacles: LanObstacle[] = [];
  const { name, index } = link;
  const taker = links.find(({ parent, kind = "" }) => parent === index && TAKERS.has(kind));
  if (taker !== undefined) {
    const hint = `ip link delete dev ${taker.name}`;
    obstacles.push({ message: `${name} carries the ${taker.kind} ${taker.name}, which no port of a bridge can`, hint });
  }
  const leased = addresses.find(
    (address) => address.link === index && address.family === "inet" && address.validSeconds !== undefined,
  );
  if (leased !== undefined) {
    obstacles.push({
      message: `${name} has its address ${leased.address} from a DHCP client, which would go on with the card and not with the bridge`,
      hint: "have that client run on a bridge that the host's network configuration makes, and use it: volar setup --lan-bridge <bridge>",
    });
  }
  if (routes.some(({ nextHops = [] }) => nextHops.some((hop) => hop.link === index))) {
    obstacles.push({
      message: `a route with several next hops leads by ${name}, and can't be moved safely`,
      hint: BY_HAND,
    });
  }
  const moving = describeStation(link, { links, addresses, routes }).routes;
  const odd = routes.find((route) => route.link === index && route.table !== LOCAL_TABLE && route.incomplete === true);
  if (odd !== undefined) {
    obstacles.push({
      message: `the route to ${odd.destination} by ${name} has properties that can't be moved safely`,
      hint: BY_HAND,
    });
  }
  const keys = moving.map(routeKey);
  const twins = routes.filter(({ table }) => table !== LOCAL_TABLE).map((route) => routeKey(describeRoute(route)));
  const twin = moving.find((_, at) => twins.filter((key) => key === keys[at]).length > 1);
  if (twin !== undefined) {
    obstacles.push({
      message: `two routes lead to ${twin.destination} with the same metric, and can't be moved safely`,
      hint: BY_HAND,
    });
  }
  return obstacles;
}
