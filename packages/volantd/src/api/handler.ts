/**
 * What a resource file gives: one handler per route id. The type demands every route's handler, with that route's own parameters, query and body.
 */
import type { Readable } from "node:stream";
import type { RouteAccepted, RouteBody, RouteId, RouteParams, RouteQuery, RouteResponse } from "@volant/contract";
import type { FastifyReply, FastifyRequest } from "fastify";

export interface RouteInput<Id extends RouteId> {
  readonly params: RouteParams<Id>;
  readonly query: RouteQuery<Id>;
  readonly body: RouteBody<Id>;
  /** The raw body of an upload route. */
  readonly upload: Readable;
  /** Its `Idempotency-Key`, on a route that takes one. */
  readonly key: string | undefined;
  /** Aborts when the client has gone. */
  readonly signal: AbortSignal;
}

export interface RouteOutput<Id extends RouteId> {
  readonly body: RouteResponse<Id> | RouteAccepted<Id>;
  /** The body as JSON, where that is at hand already: it is sent as it is, and `body` is not looked at. */
  readonly json?: Buffer;
  /** The outcome is still to come. */
  readonly isAccepted?: boolean;
  readonly headers?: Readonly<Record<string, string>>;
}

export type Handler<Id extends RouteId> = (input: RouteInput<Id>) => RouteOutput<Id> | Promise<RouteOutput<Id>>;

export type Handlers<Ids extends RouteId> = { readonly [Id in Ids]: Handler<Id> };

/** Routes whose answer is written as it comes, or is not volantd's own. */
export type StreamedRoute =
  | "events.vms"
  | "mcp.command"
  | "metrics.get"
  | "plugins.action"
  | "system.backup"
  | "vms.action"
  | "vms.files.read"
  | "vms.files.write"
  | "vms.logs"
  | "vms.openapi";

/** Checks a request against its route. */
export type ReadInput = <Id extends StreamedRoute>(id: Id, request: FastifyRequest) => Omit<RouteInput<Id>, "signal">;

/** One for all requests: an error that is made for each costs more than many a request, and nearly nobody looks at it. */
const GONE = new DOMException("the client is gone, or has its answer", "AbortError");

/** Aborts when the client has hung up, or has its answer. */
export function goneSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once("close", () => gone.abort(GONE));
  return gone.signal;
}

/** Answers with no body. */
export const DONE = { body: undefined } as const;
