/**
 * Server-sent events (HTML Standard, section 9.2) written by hand: frames, heartbeat, back-pressure and an orderly end.
 */
import type { Writable } from "node:stream";
import { VolantError } from "@volant/contract";
import type { NumberedEvent } from "../engine/use-cases.ts";

/** How long a browser waits before it connects again, in milliseconds. */
const RETRY_MS = 1000;

/** One event as its frame. JSON has no raw line break, so one data line is enough. */
export function eventFrame({ id, event }: NumberedEvent): string {
  return `id: ${id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

function errorFrame(error: VolantError): string {
  return `event: error\ndata: ${JSON.stringify({ error: error.message, code: error.code })}\n\n`;
}

async function drained(output: Writable, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = () => {
      output.off("drain", done);
      output.off("close", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    output.once("drain", done);
    output.once("close", done);
    signal.addEventListener("abort", done);
  });
}

export interface StreamOptions {
  readonly events: AsyncIterable<NumberedEvent>;
  readonly output: Writable;
  /** Ends the stream in order. */
  readonly signal: AbortSignal;
  /** Milliseconds between heartbeat comments. */
  readonly heartbeatMs: number;
}

/**
 * Writes events to `output` until they end, the signal aborts or the reader is gone, and ends it. A reader that does not read gets no
 * heartbeats piled up for it. An expected failure of the source becomes an `error` event.
 *
 * @throws whatever else the source throws: a bug
 */
export async function streamEvents({ events, output, signal, heartbeatMs }: StreamOptions): Promise<void> {
  output.write(`retry: ${RETRY_MS}\n\n`);
  const heartbeat = setInterval(() => {
    if (!output.writableNeedDrain && !output.writableEnded) output.write(": heartbeat\n\n");
  }, heartbeatMs);
  try {
    for await (const event of events) {
      if (signal.aborted || output.destroyed) break;
      if (!output.write(eventFrame(event))) await drained(output, signal);
    }
  } catch (error) {
    if (!(error instanceof VolantError)) throw error;
    output.write(errorFrame(error));
  } finally {
    clearInterval(heartbeat);
    output.end();
  }
}
