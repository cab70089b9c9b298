/** Links, addresses and routes of this network namespace, through netlink. */
import { VolantError } from "@volant/contract";
import { Netlink, NetlinkError } from "@volant/netlink";
import type { Address, Link, Route } from "@volant/netlink";
import type { ObservedNetwork, ObservedRoute } from "../setup/observed.ts";
import type { Operation } from "../setup/operation.ts";

/** Operations on links and their addresses. */
export type LinkOperation = Extract<Operation, { readonly link: string }>;

/** Routes that lead nowhere, and those that the kernel keeps for addresses of its own. */
const DEAD_ENDS: ReadonlySet<Route["type"]> = new Set(["blackhole", "unreachable", "prohibit", "throw"]);
const OWN_ROUTES: ReadonlySet<Route["type"]> = new Set(["local", "broadcast", "anycast", "multicast"]);

/** What there is, or undefined when the kernel does not say: no netlink, or a sandbox that forbids it. */
export async function observeNetwork(): Promise<ObservedNetwork | undefined> {
  try {
    await using netlink = await Netlink.open();
    const links = await netlink.links.list({ stats: false });
    const addresses = await netlink.addresses.list({ family: "inet" });
    const routes = await netlink.routes.list({ family: "inet", table: "all" });
    return describeNetwork(links, addresses, routes);
  } catch (error) {
    if (error instanceof NetlinkError) return undefined;
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
    await using netlink = await Netlink.open();
    await change(netlink, operation);
  } catch (cause) {
    if (cause instanceof NetlinkError) throw new VolantError("not_ready", cause.message, { cause });
    throw cause;
  }
}

async function change({ links, addresses }: Netlink, operation: LinkOperation): Promise<void> {
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
