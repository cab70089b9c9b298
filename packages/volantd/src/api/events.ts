import type { ServerResponse } from "node:http";
import type { EventFeed } from "../engine/use-cases.ts";
import { streamEvents } from "./sse.ts";

/** The event streams that are open, so that a closing server can end them. */
export class EventStreams {
  readonly #feed: EventFeed;
  readonly #heartbeatMs: number;
  readonly #open = new Set<AbortController>();

  constructor(feed: EventFeed, heartbeatMs: number) {
    this.#feed = feed;
    this.#heartbeatMs = heartbeatMs;
  }

  /**
   * Streams events as the answer, until the client goes or {@link end} is called.
   *
   * @param headers headers that every answer has, such as those for CORS
   */
  async serve(
    response: ServerResponse,
    headers: Readonly<Record<string, number | string | string[] | undefined>>,
    afterId: number | undefined,
  ): Promise<void> {
    const controller = new AbortController();
    this.#open.add(controller);
    response.once("close", () => controller.abort());
    const { signal } = controller;
    const present = Object.entries(headers).filter(([, value]) => value !== undefined);
    response.writeHead(200, {
      ...Object.fromEntries(present),
      "content-type": "text/event-stream",
      // nginx would gather events before it passes them on.
      "x-accel-buffering": "no",
    });
    try {
      const events = this.#feed.subscribe(afterId === undefined ? { signal } : { afterId, signal });
      await streamEvents({ events, output: response, signal, heartbeatMs: this.#heartbeatMs });
    } finally {
      this.#open.delete(controller);
      controller.abort();
    }
  }

  /** Ends every open stream in order: its reader sees the end of the answer. */
  end(): void {
    for (const controller of this.#open) controller.abort();
  }
}
