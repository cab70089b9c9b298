/** Links, addresses and routes of this network namespace, through netlink. */
import { VolantError } from "@volant/contract";
import type { Address, AddressAdd, Link, Netlink, Route, RouteAdd } from "@volant/netlink";
import type { ObservedNetwork, ObservedRoute } from "../setup/observed.ts";
import type { LanRoute } from "../setup/lan.ts";
import { labelOn } from "../setup/operation.ts";
import type { Operation } from "../setup/operation.ts";
import { isNetlinkError, openNetlink } from "./netlink.ts";

/** Operations on links and their addresses. */
export type LinkOperation = Extract<Operation, { readonly link: string }>;

/** Routes that lead nowhere, and those that the kernel keeps for addresses of its own. */
const DEAD_ENDS: ReadonlySet<Route["type"]> = new Set(["blackhole", "unreachable", "prohibit", "throw"]);
const OWN_ROUTES: ReadonlySet<Route["type"]> = new Set(["local", "broadcast", "anycast", "multicast"]);

/** What there is, or undefined when the kernel does not say: no netlink, or a sandbox that forbids it. */
export async function observeNetwork(): Promise<ObservedNetwork | undefined> {
  try {
    await using netlink = await openNetlink();
    const links = await netlink.links.list({ stats: false });
    const addresses = await netlink.addresses.list({ family: "inet" });
    const routes = await netlink.routes.list({ family: "inet", table: "all" });
    return describeNetwork(links, addresses, routes);
  } catch (error) {
    if (isNetlinkError(error)) return undefined;
    throw error;
  }
}

/** A namespace's links, addresses and routes as set-up and the doctor look at them. */
export function describeNetwork(
  links: readonly Link[],
  addresses: readonly Address[],
  routes: readonly Route[],
): ObservedNetwork {
  const names = new Map(links.map(({ index, name }) => [index, name]));
  return {
    links: links.map(({ name, index, kind, mac, flags, alias, master }) => {
      return { name, index, kind, mac: mac ?? "", up: flags.up, alias, master };
    }),
    addresses: addresses.flatMap(({ link, address, prefixLength, peer }) => {
      const name = names.get(link);
      if (name === undefined) return [];
      // On a point-to-point link the prefix is the other end's.
      if (peer === undefined || peer === address) return [{ link: name, address, prefixLength }];
      return [
        { link: name, address, prefixLength: 32 },
        { link: name, address: peer, prefixLength },
      ];
    }),
    routes: routes
      .filter(({ type }) => !OWN_ROUTES.has(type))
      .flatMap((route): ObservedRoute[] => {
        const destination = route.destination === "default" ? "0.0.0.0/0" : route.destination;
        const indexes = route.link === undefined ? (route.nextHops ?? []).map(({ link }) => link) : [route.link];
        const hops = indexes.length === 0 ? [undefined] : indexes.map((index) => names.get(index));
        return hops.map((link) => ({ destination, link, leads: !DEAD_ENDS.has(route.type) }));
      }),
  };
}

/**
 * Carries one operation out. What is as wanted already is left as it is.
 *
 * @throws VolantError when the kernel refuses
 */
export async function changeNetwork(operation: LinkOperation): Promise<void> {
  try {
    await using netlink = await openNetlink();
    await change(netlink, operation);
  } catch (cause) {
    if (isNetlinkError(cause)) throw new VolantError("not_ready", cause.message, { cause });
    throw cause;
  }
}

async function change(netlink: Netlink, operation: LinkOperation): Promise<void> {
  const { links, addresses } = netlink;
  const { link: name } = operation;
  switch (operation.kind) {
    case "create_bridge": {
      const found = await links.get(name);
      if (found === undefined) await links.create({ name, kind: "bridge", mac: operation.mac });
      else if (found.kind !== "bridge" || found.mac !== operation.mac) {
        throw new VolantError("exists", `somebody made a link called ${name} just now`, { hint: "try again" });
      }
      await links.set(name, { alias: operation.alias });
      return;
    }
    case "create_lan_bridge": {
      const { mac, mtu, alias } = operation;
      const found = await links.get(name);
      if (found === undefined) await links.create({ name, kind: "bridge", mac, mtu, stp: false, forwardDelayMs: 0 });
      else if (found.kind !== "bridge" || found.mac !== mac) {
        throw new VolantError("exists", `somebody made a link called ${name} just now`, { hint: "try again" });
      }
      await links.set(name, { alias });
      return;
    }
    case "move_card":
      return await moveCard(netlink, operation);
    case "add_lan_address":
    case "delete_lan_address":
      return await changeLanAddress(netlink, operation);
    case "replace_route":
      return await replaceRoute(netlink, name, operation.route);
    case "delete_link":
      if ((await links.get(name)) !== undefined) await links.delete(name);
      return;
    case "set_alias":
      await links.set(name, { alias: operation.alias });
      return;
    case "set_mac":
      await links.set(name, { mac: operation.mac });
      return;
    case "set_up":
      await links.set(name, { up: operation.up });
      return;
    case "add_address":
    case "delete_address": {
      const { address, prefixLength } = operation;
      const present = (await addresses.list({ link: name, family: "inet" })).some(
        (other) => other.address === address && other.prefixLength === prefixLength,
      );
      if (operation.kind === "add_address" && !present) await addresses.add({ link: name, address, prefixLength });
      if (operation.kind === "delete_address" && present) await addresses.delete({ link: name, address, prefixLength });
    }
  }
}

async function changeLanAddress(
  { addresses }: Netlink,
  { kind, link, address: wanted }: Extract<LinkOperation, { kind: "add_lan_address" | "delete_lan_address" }>,
): Promise<void> {
  const { family, label: _, ...rest } = wanted;
  const { address, prefixLength, peer } = wanted;
  const present = (await addresses.list({ link, family })).some(
    (other) => other.address === address && other.prefixLength === prefixLength && other.peer === peer,
  );
  const label = labelOn(wanted, link);
  // As with routes: what is in it, netlink printed.
  const add = { ...rest, ...(label === undefined ? {} : { label }), link } as AddressAdd;
  if (kind === "add_lan_address" && !present) await addresses.add(add);
  if (kind === "delete_lan_address" && present) {
    await addresses.delete({ link, address, prefixLength, ...(peer === undefined ? {} : { peer }) });
  }
}

async function replaceRoute({ routes }: Netlink, link: string, route: LanRoute): Promise<void> {
  // Only what netlink itself printed is in it: the record's schema holds these to text and numbers.
  await routes.add({ ...(route as Omit<RouteAdd, "link">), link, replace: true });
}

async function moveCard(
  netlink: Netlink,
  { link: card, bridge, to, routes }: Extract<LinkOperation, { kind: "move_card" }>,
): Promise<void> {
  const { links } = netlink;
  if (to === "bridge") {
    await links.set(card, { up: true, master: bridge });
    await links.set(bridge, { up: true });
    for (const route of routes) await replaceRoute(netlink, bridge, route);
  } else {
    await links.set(card, { master: null });
    for (const route of routes) await replaceRoute(netlink, card, route);
    // With it go the routes that come with its addresses, before those of the card.
    await links.set(bridge, { up: false });
  }
}
