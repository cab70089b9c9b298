import type { RouteId } from "@volant/contract/endpoints";

/** What a tool asks of a route. */
export interface RouteCall {
  readonly params: Readonly<Record<string, string>>;
  readonly query: Readonly<Record<string, unknown>>;
  /** Absent where the route takes none. */
  readonly body?: unknown;
}

export interface RouteAnswer {
  /** The JSON of the good answer; undefined where it has none. Of a stream of events: the data of each. */
  readonly body: unknown;
  /** Count before paging, of a list that has pages. */
  readonly total?: number | undefined;
}

/**
 * Asks a route of the API: volantd by itself, volar through the SDK.
 *
 * @throws VolantError what the route refuses with
 */
export type CallRoute = (route: RouteId, call: RouteCall, signal: AbortSignal) => Promise<RouteAnswer>;
