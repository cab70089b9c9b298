/** Events of VMs: a stream of them, and a list of those that are kept. */
import type { ServerResponse } from "node:http";
import {
  DEFAULT_EVENT_LIMIT,
  EVENT_ID_PATTERN,
  ROUTE_SCOPES,
  ROUTE_SPECS,
  VolantError,
  type EventListQuery,
  type VmEventsQuery,
} from "@volant/contract";
import type { FastifyInstance } from "fastify";
import type { EventFeed, EventFilter, SubscribeOptions } from "../engine/use-cases.ts";
import type { ReadInput } from "./handler.ts";
import type { Handlers } from "./handler.ts";
import { streamEvents, streamFrames, type FrameOptions } from "./sse.ts";

/** What a query selects. @throws VolantError `invalid` for a time that is none */
function filterOf({ name, type, since }: EventListQuery | VmEventsQuery): EventFilter {
  const sinceMs = since === undefined ? undefined : Date.parse(since);
  if (Number.isNaN(sinceMs)) throw new VolantError("invalid", `query: since: there is no time ${since}`);
  return { names: name, types: type, sinceMs };
}

/** The route `events.list`. */
export function eventHandlers(feed: EventFeed): Handlers<"events.list"> {
  return {
    "events.list": ({ query }) => {
      if (query.type?.includes("VM_LOG") === true) {
        throw new VolantError("invalid", "lines of logs are not kept among the events", {
          hint: "a VM's log is at GET /api/v1/vms/:name/logs: volar vms logs <name>",
        });
      }
      const { after, before, limit = DEFAULT_EVENT_LIMIT } = query;
      const events = feed.list({ filter: filterOf(query), after, before, limit });
      return { body: events.map(({ id, event }) => ({ id, ...event })) };
    },
  };
}

/** The route `events.vms`. */
export function addEventRoute(app: FastifyInstance, streams: EventStreams, read: ReadInput): void {
  app.route({
    method: "GET",
    url: ROUTE_SPECS["events.vms"].path,
    config: { scope: ROUTE_SCOPES["events.vms"] },
    exposeHeadRoute: false,
    handler: async (request, reply) => {
      const { query } = read("events.vms", request);
      const last = request.headers["last-event-id"];
      if (last !== undefined && (typeof last !== "string" || !new RegExp(EVENT_ID_PATTERN).test(last))) {
        throw new VolantError("invalid", "the header Last-Event-ID is not the id of an event");
      }
      const afterId = last === undefined ? query.after : Number(last);
      const filter = filterOf(query);
      reply.hijack();
      await streams.serve(reply.raw, reply.getHeaders(), { afterId, filter });
    },
  });
}

type AnswerHeaders = Readonly<Record<string, number | string | string[] | undefined>>;

/** The event streams that are open, so that a closing server can end them. */
export class EventStreams {
  readonly #feed: EventFeed;
  readonly #heartbeatMs: number;
  readonly #open = new Set<AbortController>();

  constructor(feed: EventFeed, heartbeatMs: number) {
    this.#feed = feed;
    this.#heartbeatMs = heartbeatMs;
  }

  /** A signal that aborts when the client goes or {@link end} is called. */
  track(response: ServerResponse): AbortSignal {
    const controller = new AbortController();
    this.#open.add(controller);
    response.once("close", () => {
      this.#open.delete(controller);
      controller.abort();
    });
    return controller.signal;
  }

  /**
   * Streams events as the answer, until the client goes or {@link end} is called.
   *
   * @param headers headers that every answer has, such as those for CORS
   */
  async serve(
    response: ServerResponse,
    headers: AnswerHeaders,
    wanted: Omit<SubscribeOptions, "signal"> = {},
  ): Promise<void> {
    const signal = this.track(response);
    const events = this.#feed.subscribe({ ...wanted, signal });
    this.#begin(response, headers);
    await streamEvents({ events, ...this.#options(response, signal) });
  }

  /** The same for frames of another kind. @param signal from {@link track} */
  async serveFrames(
    response: ServerResponse,
    headers: AnswerHeaders,
    frames: AsyncIterable<string>,
    signal: AbortSignal,
  ): Promise<void> {
    this.#begin(response, headers);
    await streamFrames({ frames, ...this.#options(response, signal) });
  }

  #options(output: ServerResponse, signal: AbortSignal): Pick<FrameOptions, "heartbeatMs" | "output" | "signal"> {
    return { output, signal, heartbeatMs: this.#heartbeatMs };
  }

  #begin(response: ServerResponse, headers: AnswerHeaders): void {
    const present = Object.entries(headers).filter(([, value]) => value !== undefined);
    response.writeHead(200, {
      ...Object.fromEntries(present),
      "content-type": "text/event-stream",
      // nginx would gather events before it passes them on.
      "x-accel-buffering": "no",
    });
  }

  /** Ends every open stream in order: its reader sees the end of the answer. */
  end(): void {
    for (const controller of this.#open) controller.abort();
  }
}
