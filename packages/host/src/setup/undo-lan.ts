/** LAN bridges, undone: what is on the bridge now goes back to the card, in the same careful order. No I/O. */
import { addressKey, disableIpv6Name, inOrderOfReach, sameRoute, type ObservedStation } from "./lan.ts";
import type { ObservedHost, ObservedLink } from "./observed.ts";
import type { Operation } from "./operation.ts";
import { isOwn } from "./plan-lan.ts";
import { isStale } from "./record.ts";
import type { Effect, SetupRecord } from "./record.ts";
import type { UndoStep } from "./undo.ts";

type Outcome = Omit<UndoStep, "key">;

/** The effects that LAN bridges leave. */
export type LanEffect = Extract<Effect, { readonly kind: "lan_bridge" | "lan_card" }>;

export function isLanEffect(effect: Effect): effect is LanEffect {
  return effect.kind === "lan_bridge" || effect.kind === "lan_card";
}

function findLink(observed: ObservedHost, name: string): ObservedLink | undefined {
  return observed.network?.links.find((link) => link.name === name);
}

/** Ports of LAN bridges of ours, other than their cards: taps of VMs, as a rule. */
export function foreignLanPorts(
  record: SetupRecord,
  observed: ObservedHost,
): readonly { readonly bridge: string; readonly ports: readonly string[] }[] {
  return record.lans.flatMap(({ bridge, card }) => {
    const link = findLink(observed, bridge);
    if (card === null || link === undefined || !isOwn(link, record.settings, record)) return [];
    const ports = (observed.network?.links ?? []).filter(
      ({ master, name }) => master === link.index && name !== card.name,
    );
    return ports.length === 0 ? [] : [{ bridge, ports: ports.map(({ name }) => name) }];
  });
}

export function undoLan(effect: LanEffect, record: SetupRecord, observed: ObservedHost): Outcome {
  return effect.kind === "lan_bridge" ? undoBridge(effect, record, observed) : undoCard(effect, record, observed);
}

function undoBridge({ link: name }: LanEffect, record: SetupRecord, observed: ObservedHost): Outcome {
  const title = `LAN bridge ${name}`;
  const link = findLink(observed, name);
  if (link === undefined) return { title, outcome: "gone", operations: [] };
  if (!isOwn(link, record.settings, record)) {
    return { title, outcome: "kept", reason: "someone made another of that name since", operations: [] };
  }
  return { title, outcome: "undo", operations: [{ kind: "delete_link", link: name }] };
}

const BARE: Pick<ObservedStation, "addresses" | "routes" | "ipv6Disabled"> = {
  addresses: [],
  routes: [],
  ipv6Disabled: undefined,
};

function undoCard(effect: LanEffect & { kind: "lan_card" }, record: SetupRecord, observed: ObservedHost): Outcome {
  const { link: name, bridge: bridgeName } = effect;
  const title = `${name} on ${bridgeName}`;
  const card = findLink(observed, name);
  const bridge = findLink(observed, bridgeName);
  const gone: Outcome = { title, outcome: "gone", operations: [] };
  if (card === undefined || isStale(record, observed.kernel)) return gone;
  if (bridge !== undefined && !isOwn(bridge, record.settings, record)) return gone;
  if (card.master !== undefined && card.master !== bridge?.index) {
    return { title, outcome: "kept", reason: "it is a port of another link since", operations: [] };
  }
  const isPort = card.master !== undefined;
  const original = record.lans.find((lan) => lan.bridge === bridgeName)?.card ?? undefined;
  const here = observed.stations[name] ?? BARE;
  // Where somebody deleted the bridge, its addresses went with it, and the card has none.
  const there = bridge === undefined ? (original ?? BARE) : (observed.stations[bridgeName] ?? BARE);
  const had = new Set(here.addresses.map(addressKey));
  const as = new Map((original?.addresses ?? []).map((address) => [addressKey(address), address]));
  const operations: Operation[] = [];
  // Where the record was lost, nobody knows what it was: an IPv6 address needs it on.
  const needsIpv6 = there.addresses.some((address) => address.family === "inet6" && !had.has(addressKey(address)));
  if (here.ipv6Disabled === "1" && (effect.ipv6Disabled === "0" || needsIpv6)) {
    operations.push({ kind: "set_sysctl", name: disableIpv6Name(name), value: "0" });
  }
  for (const address of there.addresses) {
    const key = addressKey(address);
    if (had.has(key)) continue;
    operations.push({ kind: "add_lan_address", link: name, address: as.get(key) ?? address });
  }
  const routes = inOrderOfReach(there.routes).filter((route) => !here.routes.some((other) => sameRoute(route, other)));
  if (bridge === undefined) {
    operations.push(...routes.map((route): Operation => ({ kind: "replace_route", link: name, route })));
  } else if (isPort || routes.length > 0) {
    operations.push({ kind: "move_card", link: name, bridge: bridgeName, to: "card", routes });
  }
  for (const address of bridge === undefined ? [] : there.addresses.toReversed()) {
    operations.push({ kind: "delete_lan_address", link: bridgeName, address });
  }
  if (original?.up === false && card.up) operations.push({ kind: "set_up", link: name, up: false });
  return operations.length === 0 ? gone : { title, outcome: "undo", operations };
}
