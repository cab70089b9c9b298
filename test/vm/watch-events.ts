import type { VmEvent } from "@volant/contract";
import { fetchInTime, PATIENCE_MS } from "../patience.ts";

export interface Watch {
  /** Resolves with the events, once one came that ends the watch. */
  readonly seen: Promise<VmEvent[]>;
}

/** Watches events from now on, until one that `last` holds for; in force when this resolves. */
export async function watchUntil(base: string, last: (event: VmEvent) => boolean): Promise<Watch> {
  const controller = new AbortController();
  const response = await fetchInTime(`${base}/api/v1/events/vms`, { signal: controller.signal }, 2 * PATIENCE_MS);
  const read = async (): Promise<VmEvent[]> => {
    const events: VmEvent[] = [];
    let text = "";
    for await (const chunk of (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const frames = text.split("\n\n");
      text = frames.pop() ?? "";
      for (const frame of frames) {
        const data = /^data: (.*)$/m.exec(frame)?.[1];
        if (data === undefined) continue;
        const event = JSON.parse(data) as VmEvent;
        events.push(event);
        if (!last(event)) continue;
        controller.abort();
        return events;
      }
    }
    throw new Error("the events ended");
  };
  return { seen: read() };
}
