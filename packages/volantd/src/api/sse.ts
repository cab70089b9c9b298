/**
 * Server-sent events (HTML Standard, section 9.2) written by hand: frames, heartbeat, back-pressure and an orderly end.
 */
import type { Writable } from "node:stream";
import { VolantError } from "@volant/contract";
import type { EventGap, EventSubscription, NumberedEvent } from "../engine/use-cases.ts";

/** How long a browser waits before it connects again, in milliseconds. */
const RETRY_MS = 1000;

/** A reader whose socket takes nothing for so long is cut off, where a stream has such a limit. */
const STALL_MS = 60_000;
/** How long one that was cut off has to read what lies in its socket, the reason last, before the connection is broken. */
const LINGER_MS = 10_000;

/** One event, or a gap in them, as its frame. JSON has no raw line break, so one data line is enough. */
export function eventFrame(item: NumberedEvent | EventGap): string {
  if ("gap" in item) return `id: ${item.gap.kept_after}\nevent: gap\ndata: ${JSON.stringify(item.gap)}\n\n`;
  return `id: ${item.id}\nevent: ${item.event.type}\ndata: ${JSON.stringify(item.event)}\n\n`;
}

function errorFrame(error: VolantError): string {
  return `event: error\ndata: ${JSON.stringify({ error: error.message, code: error.code })}\n\n`;
}

/** @throws VolantError `rate_limited` when the reader takes nothing for `stallMs` */
async function drained(output: Writable, signal: AbortSignal, stallMs: number | undefined): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const stalled = () => {
    const seconds = Math.round((stallMs ?? 0) / 1000);
    reject(
      new VolantError("rate_limited", `this reader has taken nothing for ${seconds} s, and was cut off`, {
        hint: "connect again with Last-Event-ID",
      }),
    );
  };
  const timer = stallMs === undefined ? undefined : setTimeout(stalled, stallMs).unref();
  const done = () => resolve();
  output.once("drain", done);
  output.once("close", done);
  signal.addEventListener("abort", done);
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    output.off("drain", done);
    output.off("close", done);
    signal.removeEventListener("abort", done);
  }
}

export interface FrameOptions {
  readonly frames: AsyncIterable<string>;
  readonly output: Writable;
  /** Ends the stream in order. */
  readonly signal: AbortSignal;
  /** Milliseconds between heartbeat comments. */
  readonly heartbeatMs: number;
  /**
   * The id from which the reader would go on, told at the beginning and with each heartbeat: a frame without data moves `Last-Event-ID` and is no event
   * (HTML Standard, section 9.2.6). So a reader that comes back after a long silence has not fallen behind what is kept.
   */
  readonly position?: () => number;
  /** Milliseconds after which a reader that takes nothing is cut off; absent for never. */
  readonly stallMs?: number;
  /** Milliseconds that a reader has to take the end of the stream. */
  readonly lingerMs?: number;
}

export interface EventStreamOptions extends Omit<FrameOptions, "frames" | "position"> {
  readonly events: EventSubscription;
}

/** As {@link streamFrames}, for events. */
export function streamEvents({ events, stallMs = STALL_MS, ...options }: EventStreamOptions): Promise<void> {
  async function* frames(): AsyncGenerator<string> {
    for await (const event of events) yield eventFrame(event);
  }
  return streamFrames({ ...options, stallMs, frames: frames(), position: () => events.position });
}

/**
 * Writes frames to `output` until they end, the signal aborts or the reader is gone, and ends it. A reader that does not read gets no
 * heartbeats piled up for it. An expected failure of the source becomes an `error` event. Where
 * there is a limit to a reader's silence, one that does not take the end either loses its connection.
 *
 * @throws whatever else the source throws: a bug
 */
export async function streamFrames({
  frames,
  output,
  signal,
  heartbeatMs,
  position,
  stallMs,
  lingerMs = LINGER_MS,
}: FrameOptions): Promise<void> {
  const place = () => (position === undefined ? "" : `id: ${position()}\n`);
  output.write(`retry: ${RETRY_MS}\n${place()}\n`);
  const heartbeat = setInterval(() => {
    if (!output.writableNeedDrain && !output.writableEnded) output.write(`: heartbeat\n${place()}\n`);
  }, heartbeatMs);
  try {
    for await (const frame of frames) {
      if (signal.aborted || output.destroyed) break;
      if (!output.write(frame)) await drained(output, signal, stallMs);
    }
  } catch (error) {
    if (!(error instanceof VolantError)) throw error;
    output.write(errorFrame(error));
  } finally {
    clearInterval(heartbeat);
    if (stallMs !== undefined) breakAfter(output, lingerMs);
    output.end();
  }
}

function breakAfter(output: Writable, lingerMs: number): void {
  const timer = setTimeout(() => output.destroy(), lingerMs).unref();
  const done = () => clearTimeout(timer);
  output.once("finish", done);
  output.once("close", done);
}
