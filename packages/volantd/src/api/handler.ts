/**
 * What a resource file gives: one handler per route id. The type demands every route's handler, with that route's own parameters, query and body.
 */
import type { Readable } from "node:stream";
import type { RouteBody, RouteId, RouteParams, RouteQuery, RouteResponse } from "@volant/contract";

export interface RouteInput<Id extends RouteId> {
  readonly params: RouteParams<Id>;
  readonly query: RouteQuery<Id>;
  readonly body: RouteBody<Id>;
  /** The raw body of an upload route. */
  readonly upload: Readable;
}

export interface RouteOutput<Id extends RouteId> {
  readonly body: RouteResponse<Id>;
  readonly headers?: Readonly<Record<string, string>>;
}

export type Handler<Id extends RouteId> = (input: RouteInput<Id>) => RouteOutput<Id> | Promise<RouteOutput<Id>>;

export type Handlers<Ids extends RouteId> = { readonly [Id in Ids]: Handler<Id> };

/** Answers with no body. */
export const DONE = { body: undefined } as const;
