import type { IpFamily } from "./codec/ip-text.ts";
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from "./codec/message.ts";
import {
  decodeRoute,
  MAIN_TABLE,
  type Route,
  type RouteAttributes,
  type RouteFlag,
  type RouteProtocol,
  type RouteType,
  RTM_DELROUTE,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  writeRoute,
  writeRouteRequest,
} from "./codec/route.ts";
import type { Scope } from "./codec/scope.ts";
import { type LinkRef, resolveIndex, type Session } from "./session.ts";
import { checkDestination, checkIp } from "./validate.ts";

export interface RouteListOptions {
  readonly family?: IpFamily;
  /** A table's number, or `all`. The default is the main table, as with ip-route(8). */
  readonly table?: number | "all";
  readonly link?: LinkRef;
}

export interface RouteAdd {
  /** `10.0.0.0/8`, an address, or `default`. */
  readonly destination: string;
  /** Needed only for an IPv6 `default`; otherwise the destination says it. */
  readonly family?: IpFamily;
  readonly gateway?: string;
  readonly link?: LinkRef;
  readonly preferredSource?: string;
  readonly metric?: number;
  readonly mtu?: number;
  /** The default is the main table. */
  readonly table?: number;
  /** Who made it. The default is `boot`, as with ip-route(8). */
  readonly protocol?: RouteProtocol;
  /** The default is `global` with a gateway, else `link`. */
  readonly scope?: Scope;
  readonly type?: RouteType;
  readonly flags?: readonly RouteFlag[];
  readonly nextHops?: readonly { readonly link: LinkRef; readonly gateway?: string; readonly weight?: number }[];
  /** Replaces the route to the same destination with the same metric, instead of failing with EEXIST. */
  readonly replace?: boolean;
}

/** Routes of the namespace's tables. */
export class Routes {
  readonly #session: Session;

  constructor(session: Session) {
    this.#session = session;
  }

  /** The routes of the main table, of another one, or of all. Cached and cloned entries are not routes. */
  async list(options: RouteListOptions = {}): Promise<Route[]> {
    const operation = "list routes";
    const table = options.table === "all" ? undefined : (options.table ?? MAIN_TABLE);
    const link = options.link === undefined ? undefined : await resolveIndex(options.link, operation);
    const { family } = options;
    const routes: Route[] = [];
    // A kernel filter by table needs a family.
    for (const each of family === undefined ? (["inet", "inet6"] as const) : [family]) {
      routes.push(
        ...(await this.#session.socket.dump(
          { operation, type: RTM_GETROUTE, write: (writer) => writeRouteRequest(writer, each, undefined, undefined) },
          (message) => (message.type === RTM_NEWROUTE ? decodeRoute(message.body) : undefined),
        )),
      );
    }
    return routes.filter(
      (route) => (table === undefined || route.table === table) && (link === undefined || route.link === link),
    );
  }

  /** Adds a route. EEXIST when there is one to the same destination with the same metric. */
  async add(route: RouteAdd): Promise<void> {
    const operation = "add route";
    const attributes = await this.#attributes(operation, route);
    const defaultScope = this.#defaultScope(route);
    await this.#session.socket.change({
      operation,
      object: route.destination,
      type: RTM_NEWROUTE,
      flags: NLM_F_CREATE | (route.replace === true ? NLM_F_REPLACE : NLM_F_EXCL),
      write: (writer) =>
        writeRoute(writer, {
          ...attributes,
          protocol: route.protocol ?? "boot",
          scope: route.scope ?? defaultScope,
          type: route.type ?? "unicast",
        }),
    });
  }

  /** Deletes the first route that agrees with every field that is given. ESRCH when none does. */
  async delete(route: RouteAdd): Promise<void> {
    const operation = "delete route";
    const attributes = await this.#attributes(operation, route);
    await this.#session.socket.change({
      operation,
      object: route.destination,
      type: RTM_DELROUTE,
      write: (writer) =>
        writeRoute(writer, {
          ...attributes,
          protocol: route.protocol ?? "unspecified",
          scope: route.scope ?? "nowhere",
          type: route.type ?? "unspecified",
        }),
    });
  }

  #defaultScope(route: RouteAdd): Scope {
    if (route.type === "local") return "host";
    const direct = route.gateway === undefined && route.nextHops === undefined;
    return direct && (route.type === undefined || route.type === "unicast") ? "link" : "global";
  }

  async #attributes(operation: string, route: RouteAdd): Promise<Omit<RouteAttributes, "protocol" | "scope" | "type">> {
    const { destination, gateway, preferredSource, metric, mtu, table, flags } = route;
    const family = checkDestination(operation, destination, route.family);
    if (gateway !== undefined) checkIp(operation, gateway);
    if (preferredSource !== undefined) checkIp(operation, preferredSource);
    const link = route.link === undefined ? undefined : await resolveIndex(route.link, operation, destination);
    const nextHops =
      route.nextHops === undefined ? undefined : await resolveHops(operation, destination, route.nextHops);
    return { family, destination, gateway, link, preferredSource, metric, mtu, table, flags, nextHops };
  }
}

async function resolveHops(
  operation: string,
  destination: string,
  hops: NonNullable<RouteAdd["nextHops"]>,
): Promise<NonNullable<RouteAttributes["nextHops"]>> {
  return Promise.all(
    hops.map(async ({ link, gateway, weight = 1 }) => {
      if (gateway !== undefined) checkIp(operation, gateway);
      const index = await resolveIndex(link, operation, destination);
      return gateway === undefined ? { link: index, weight } : { link: index, gateway, weight };
    }),
  );
}
