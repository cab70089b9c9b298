import type { NumberedVmEvent, VmEvent, VmEventGap, VmEventsQuery, VmEventType } from "@volant/contract";
import { isErrorCode, VolantError } from "@volant/contract/errors";
import { delay } from "./delay.ts";
import { SseParser, type ServerSentEvent } from "./sse-parser.ts";
import type { Answer, Transport } from "./transport.ts";

/** Waits between attempts to connect again, in milliseconds; the last one repeats. */
export const RECONNECT_MS = [100, 500, 1000, 2000, 5000] as const;

export interface EventOptions {
  /** Ends the stream: the iterator throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /** Events after this id first, as far as volantd keeps them; 0 for all of them. */
  readonly afterId?: number | undefined;
  /** Events of this time and later first, where no id is given. */
  readonly since?: Date | undefined;
  /** Only of these VMs. */
  readonly name?: readonly string[] | undefined;
  /** Only of these types. */
  readonly type?: readonly VmEventType[] | undefined;
  /** Called where events that were asked for are not kept any more: what is known of the VMs has to be looked up again. What follows is what is kept. */
  readonly onGap?: ((gap: VmEventGap) => void) | undefined;
}

/** `connected` comes each time the stream is open: from then on no event is missed, before it some may have been. */
export type StreamItem =
  | { readonly kind: "connected" }
  | { readonly kind: "event"; readonly event: NumberedVmEvent }
  | { readonly kind: "gap"; readonly gap: VmEventGap };

function toItem(message: ServerSentEvent): StreamItem {
  const data = JSON.parse(message.data) as unknown;
  if (message.type === "gap") return { kind: "gap", gap: data as VmEventGap };
  if (message.type !== "error") return { kind: "event", event: { id: Number(message.id), ...(data as VmEvent) } };
  const { error, code } = data as { error?: unknown; code?: unknown };
  throw new VolantError(isErrorCode(code) ? code : "internal", String(error));
}

/**
 * The events of an answer, to its end.
 *
 * @param onId called with the last id that was received, once all events before it were taken
 */
export async function* readStream(
  response: Answer,
  onId?: (id: string | undefined) => void,
): AsyncGenerator<ServerSentEvent> {
  const parser = new SseParser();
  const decoder = new TextDecoder();
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
      onId?.(parser.lastId);
    }
  } finally {
    // Whoever stops reading hangs up.
    await reader.cancel().catch(() => undefined);
  }
}

/** Whether trying again can help: the server is away or shutting down, or cut a reader that was too slow. */
export function passing(error: unknown): boolean {
  return error instanceof VolantError && ["not_ready", "rate_limited", "timeout"].includes(error.code);
}

/**
 * The event stream with its connections: connects, and connects again where it was, until the signal aborts or the reader stops.
 *
 * @throws VolantError when the first attempt fails, or a later one in a way that will not pass, such as `unauthorized`
 */
export async function* streamItems(transport: Transport, options: EventOptions): AsyncGenerator<StreamItem> {
  const { signal } = options;
  const query = queryOf(options);
  let lastId = options.afterId === undefined ? undefined : String(options.afterId);
  let attempts = 0;
  let connectedOnce = false;
  for (;;) {
    try {
      const headers = lastId === undefined ? {} : { "Last-Event-ID": lastId };
      const response = await transport.request("events.vms", { signal, headers, query });
      connectedOnce = true;
      attempts = 0;
      try {
        yield { kind: "connected" };
        const moveOn = (id: string | undefined) => (lastId = id ?? lastId);
        for await (const message of readStream(response, moveOn)) {
          const item = toItem(message);
          moveOn(message.id);
          yield item;
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

function queryOf({ name, type, since }: EventOptions): VmEventsQuery {
  return {
    ...(name === undefined ? {} : { name: [...name] }),
    ...(type === undefined ? {} : { type: [...type] }),
    ...(since === undefined ? {} : { since: since.toISOString() }),
  };
}

/** Just the events. */
export async function* streamEvents(transport: Transport, options: EventOptions): AsyncGenerator<NumberedVmEvent> {
  for await (const item of streamItems(transport, options)) {
    if (item.kind === "event") yield item.event;
    else if (item.kind === "gap") options.onGap?.(item.gap);
  }
}
