import type { VmEvent } from "@volant/contract";
import { isErrorCode, VolantError } from "@volant/contract/errors";
import { SseParser, type ServerSentEvent } from "./sse-parser.ts";
import type { Transport } from "./transport.ts";

/** Waits between attempts to connect again, in milliseconds; the last one repeats. */
const RECONNECT_MS = [100, 500, 1000, 2000, 5000] as const;

export interface EventOptions {
  /** Ends the stream: the iterator throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Events after this id first, as far as volantd remembers them. */
  readonly afterId?: number | undefined;
}

/** `connected` comes each time the stream is open: from then on no event is missed, before it some may have been. */
export type StreamItem = { readonly kind: "connected" } | { readonly kind: "event"; readonly event: VmEvent };

function delay(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason as Error);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted === true) stop();
  });
}

function toEvent(message: ServerSentEvent): VmEvent {
  const data = JSON.parse(message.data) as unknown;
  if (message.type !== "error") return data as VmEvent;
  const { error, code } = data as { error?: unknown; code?: unknown };
  throw new VolantError(isErrorCode(code) ? code : "internal", String(error));
}

async function* readStream(response: Response): AsyncGenerator<ServerSentEvent> {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    // Whoever stops reading hangs up.
    await reader.cancel().catch(() => undefined);
  }
}

/** Whether trying again can help: the server is away or shutting down, or cut a reader that was too slow. */
function passing(error: unknown): boolean {
  return error instanceof VolantError && ["not_ready", "rate_limited", "timeout"].includes(error.code);
}

/**
 * The event stream with its connections: connects, and connects again where it was, until the signal aborts or the reader stops.
 *
 * @throws VolantError when the first attempt fails, or a later one in a way that will not pass, such as `unauthorized`
 */
export async function* streamItems(transport: Transport, options: EventOptions): AsyncGenerator<StreamItem> {
  const { signal } = options;
  let lastId = options.afterId === undefined ? undefined : String(options.afterId);
  let attempts = 0;
  let connectedOnce = false;
  for (;;) {
    try {
      const headers = lastId === undefined ? {} : { "Last-Event-ID": lastId };
      const response = await transport.request("events.vms", { signal, headers });
      connectedOnce = true;
      attempts = 0;
      try {
        yield { kind: "connected" };
        for await (const message of readStream(response)) {
          lastId = message.id ?? lastId;
          yield { kind: "event", event: toEvent(message) };
        }
      } finally {
        // A reader that stopped before the first event: nobody has locked the body, and it keeps the connection open.
        await response.body?.cancel().catch(() => undefined);
      }
    } catch (error) {
      signal?.throwIfAborted();
      // A connection that breaks in the middle of the stream shows as a TypeError of fetch().
      if (!connectedOnce || !(passing(error) || error instanceof TypeError)) throw error;
    }
    await delay(RECONNECT_MS[Math.min(attempts, RECONNECT_MS.length - 1)] ?? 0, signal);
    attempts += 1;
  }
}

/** Just the events. */
export async function* streamEvents(transport: Transport, options: EventOptions): AsyncGenerator<VmEvent> {
  for await (const item of streamItems(transport, options)) if (item.kind === "event") yield item.event;
}
