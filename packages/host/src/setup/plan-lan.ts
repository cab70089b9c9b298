/**
 * LAN bridges, planned. A card's addresses and routes move to the bridge in an order in which the host is reachable all the time: the bridge gets the
 * addresses while it is down and the card still has them; then the card becomes a port, the bridge comes up, and each route changes its link in one
 * step of the kernel, all in one operation; only then does the card lose its addresses. No I/O.
 */
import {
  addressKey,
  disableIpv6Name,
  inOrderOfReach,
  isOwnLanBridge,
  lanAlias,
  sameRoute,
  type LanCard,
  type ObservedStation,
  type RecordedLan,
} from "./lan.ts";
import type { ObservedHost, ObservedLink } from "./observed.ts";
import type { Operation } from "./operation.ts";
import type { Refusal, SetupAction } from "./plan.ts";
import { findEffect, type SetupRecord } from "./record.ts";
import type { SetupSettings } from "./settings.ts";

export interface LanPlan {
  readonly actions: readonly SetupAction[];
  readonly refusals: readonly Refusal[];
  readonly notes: readonly string[];
  /** All LAN bridges of the host once it is set up. */
  readonly lans: readonly RecordedLan[];
}

const NOTHING: LanPlan = { actions: [], refusals: [], notes: [], lans: [] };

/** One plan for the bridges that are recorded and for those that are asked for now. */
export function planLans(settings: SetupSettings, observed: ObservedHost, record: SetupRecord | undefined): LanPlan {
  const recorded = record?.lans ?? [];
  const plans = recorded.map((lan) => planRecorded(lan, settings, observed, record));
  for (const request of settings.lans) {
    const known = recorded.find(({ bridge }) => bridge === request.bridge);
    if (known !== undefined && (known.card?.name ?? null) === request.card) continue;
    const taken = recorded.find(({ card }) => card !== null && card.name === request.card);
    const clash = known ?? taken;
    plans.push(
      clash === undefined
        ? planRequested(request, settings, observed, record)
        : { ...NOTHING, refusals: [otherLan(clash)] },
    );
  }
  return {
    actions: plans.flatMap(({ actions }) => actions),
    refusals: plans.flatMap(({ refusals }) => refusals),
    notes: plans.flatMap(({ notes }) => notes),
    lans: plans.flatMap(({ lans }) => lans),
  };
}

function otherLan({ bridge, card }: RecordedLan): Refusal {
  const what = card === null ? "one that exists" : `made on ${card.name}`;
  return {
    code: "wrong_state",
    message: `the LAN bridge ${bridge} is set up already, as ${what}`,
    hint: "choose another name with --lan-name, or undo the set-up first (volar setup --undo)",
  };
}

function findLink(observed: ObservedHost, name: string): ObservedLink | undefined {
  return observed.network?.links.find((link) => link.name === name);
}

/** What is recorded is put back; where that can't be, the rest of the host must not wait for it. */
function planRecorded(
  lan: RecordedLan,
  settings: SetupSettings,
  observed: ObservedHost,
  record: SetupRecord | undefined,
): LanPlan {
  const { bridge, card } = lan;
  const link = findLink(observed, bridge);
  if (card === null) {
    const notes = link === undefined ? [`the LAN bridge ${bridge} is missing: whoever made it must make it again`] : [];
    return { ...NOTHING, actions: [acceptedAction(bridge, false)], notes, lans: [lan] };
  }
  const why = obstacleNow(lan, settings, observed, record);
  if (why !== undefined) {
    return { ...NOTHING, notes: [`the LAN bridge ${bridge} can't be put back: ${why.message}`], lans: [lan] };
  }
  const station = observed.stations[card.name];
  // What the card was given since, such as at boot, moves as well.
  const addresses = union(card.addresses, station?.addresses ?? [], addressKey);
  const routes = union(card.routes, station?.routes ?? [], JSON.stringify);
  const wanted = { ...lan, card: { ...card, addresses, routes } };
  return { ...NOTHING, actions: cardActions(bridge, wanted.card, settings, observed, record), lans: [wanted] };
}

function union<T>(first: readonly T[], second: readonly T[], key: (item: T) => string): T[] {
  const known = new Set(first.map(key));
  return [...first, ...second.filter((item) => !known.has(key(item)))];
}

function acceptedAction(bridge: string, needed: boolean): SetupAction {
  return { title: `LAN bridge ${bridge}, as it is`, needed, operations: [], effect: undefined };
}

function planRequested(
  request: SetupSettings["lans"][number],
  settings: SetupSettings,
  observed: ObservedHost,
  record: SetupRecord | undefined,
): LanPlan {
  const { bridge, card: name } = request;
  if (name === null) {
    const link = findLink(observed, bridge);
    const refuse = (refusal: Refusal): LanPlan => ({ ...NOTHING, refusals: [refusal] });
    if (observed.network !== undefined && link === undefined) {
      const hint = "make it first, or have it made on a network card: volar setup --lan <card>";
      return refuse({ code: "not_found", message: `there is no bridge ${bridge}`, hint });
    }
    if (link !== undefined && link.kind !== "bridge") {
      return refuse({
        code: "invalid",
        message: `the link ${bridge} is not a bridge`,
        hint: `volar setup --lan ${bridge}`,
      });
    }
    const lan = { bridge, card: null };
    return { ...NOTHING, actions: [acceptedAction(bridge, true)], lans: [lan] };
  }
  const link = findLink(observed, name);
  const station = observed.stations[name];
  // Where the record was lost, the card's addresses are on the bridge.
  const made = findLink(observed, bridge);
  const moved = made !== undefined && isOwn(made, settings, record) ? observed.stations[bridge] : undefined;
  const card: LanCard = {
    name,
    mac: link?.mac ?? "",
    mtu: station?.mtu ?? 1500,
    up: link?.up ?? true,
    addresses: union(moved?.addresses ?? [], station?.addresses ?? [], addressKey),
    routes: union(moved?.routes ?? [], station?.routes ?? [], JSON.stringify),
  };
  const lan = { bridge, card };
  // A dry run without a look at the links plans as if there were the card.
  const why = observed.network === undefined ? undefined : obstacleNow(lan, settings, observed, record);
  const obstacles = why === undefined ? (station?.obstacles ?? []) : [why];
  const refusals = obstacles.map((obstacle): Refusal => ({ code: "not_ready", ...obstacle }));
  const notes =
    station !== undefined && card.addresses.length === 0
      ? [`${name} has no address, so ${bridge} gets none: guests use it, this host does not`]
      : [];
  return { actions: cardActions(bridge, card, settings, observed, record), refusals, notes, lans: [lan] };
}

/** What keeps the card from being a port of the bridge, whether it is new or was one before. */
function obstacleNow(
  { bridge, card }: RecordedLan,
  settings: SetupSettings,
  observed: ObservedHost,
  record: SetupRecord | undefined,
): { readonly message: string; readonly hint?: string } | undefined {
  if (card === null) return undefined;
  const link = findLink(observed, card.name);
  if (link === undefined) {
    return { message: `there is no network card ${card.name}`, hint: "ip -brief link shows those that there are" };
  }
  if (link.kind === "bridge") {
    return { message: `${card.name} is a bridge already`, hint: `volar setup --lan-bridge ${card.name}` };
  }
  const other = findLink(observed, bridge);
  if (other !== undefined && !isOwn(other, settings, record)) {
    const what = other.kind === "bridge" ? "a bridge that volar setup did not make" : "not a bridge";
    return {
      message: `there is a link called ${bridge}, and it is ${what}`,
      hint: `choose another name with --lan-name${other.kind === "bridge" ? `, or use it as it is: --lan-bridge ${bridge}` : ""}`,
    };
  }
  if (link.master !== undefined && link.master !== other?.index) {
    const master = observed.network?.links.find(({ index }) => index === link.master);
    const name = master?.name ?? "another link";
    return {
      message: `${card.name} is a port of ${name} already`,
      hint: master?.kind === "bridge" ? `volar setup --lan-bridge ${name}` : "take it off there first",
    };
  }
  return undefined;
}

/** Whether the link is a LAN bridge of this set-up's making. */
export function isOwn(
  link: ObservedLink,
  settings: { readonly workDir: string },
  record: SetupRecord | undefined,
): boolean {
  const effect = findEffect(record, `lan_bridge ${link.name}`);
  return isOwnLanBridge(link, settings, effect?.kind === "lan_bridge" ? effect.mac : undefined);
}

const BARE: ObservedStation = { mtu: 0, addresses: [], routes: [], ipv6Disabled: undefined, obstacles: [] };

function cardActions(
  bridge: string,
  card: LanCard,
  settings: SetupSettings,
  observed: ObservedHost,
  record: SetupRecord | undefined,
): SetupAction[] {
  const alias = lanAlias(settings);
  const found = findLink(observed, bridge);
  const port = findLink(observed, card.name);
  const there = observed.stations[bridge] ?? BARE;
  const here = observed.stations[card.name] ?? BARE;
  const own = found !== undefined && isOwn(found, settings, record);
  const had = new Set(there.addresses.map(addressKey));
  const missing = card.addresses.filter((address) => !had.has(addressKey(address)));
  const actions: SetupAction[] = [
    {
      title: `LAN bridge ${bridge} with the MAC of ${card.name}, ${card.mac}`,
      needed: !own || found.alias !== alias,
      operations: own
        ? [{ kind: "set_alias", link: bridge, alias }]
        : [{ kind: "create_lan_bridge", link: bridge, mac: card.mac, mtu: card.mtu, alias }],
      effect: { kind: "lan_bridge", link: bridge, mac: card.mac },
      ours: own,
    },
  ];
  if (card.addresses.length > 0) {
    const shown = card.addresses.map(({ address, prefixLength }) => `${address}/${prefixLength}`).join(", ");
    actions.push({
      title: `${shown} on ${bridge}`,
      needed: missing.length > 0,
      operations: missing.map((address): Operation => ({ kind: "add_lan_address", link: bridge, address })),
      effect: undefined,
    });
  }
  const isPort = found !== undefined && port?.master === found.index;
  const routes = card.routes.filter((route) => !there.routes.some((other) => sameRoute(route, other)));
  const joined = isPort && found.up && port?.up === true && routes.length === 0;
  const operations: Operation[] = [
    ...(joined
      ? []
      : [{ kind: "move_card", link: card.name, bridge, to: "bridge", routes: inOrderOfReach(routes) } as const]),
    // The last first: the first of a subnet takes the others with it.
    ...here.addresses
      .toReversed()
      .map((address): Operation => ({ kind: "delete_lan_address", link: card.name, address })),
    ...(here.ipv6Disabled === "0"
      ? [{ kind: "set_sysctl", name: disableIpv6Name(card.name), value: "1" } as const]
      : []),
  ];
  actions.push({
    title: `${card.name} on ${bridge}, with its routes`,
    needed: operations.length > 0,
    operations,
    effect: { kind: "lan_card", link: card.name, bridge, ipv6Disabled: here.ipv6Disabled ?? null },
    ours: isPort,
  });
  return actions;
}
