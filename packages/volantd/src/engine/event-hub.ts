/** What happens to VMs, remembered for a while and handed to whoever listens. Nothing here ever waits for a reader. */
import { VolantError, type VmEvent } from "@volant/contract";
import type { EventFeed, NumberedEvent } from "./use-cases.ts";

/** Events that are remembered for replay; logs apart, so that a chatty workload does not push the others out. */
const REMEMBERED = 1000;
/** A reader that has this many events still to take is cut off. */
const DEFAULT_BACKLOG = 2000;

interface Reader {
  readonly queue: NumberedEvent[];
  /** Tells a reader that waits that there is something to take. */
  wake: () => void;
  overrun: boolean;
}

function remember(events: NumberedEvent[], event: NumberedEvent): void {
  events.push(event);
  if (events.length > REMEMBERED) events.shift();
}

export class EventHub implements EventFeed {
  readonly #readers = new Set<Reader>();
  readonly #changes: NumberedEvent[] = [];
  readonly #logs: NumberedEvent[] = [];
  readonly #backlog: number;
  #lastId: number;

  /** @param firstId above every id that an earlier run gave out, so that `Last-Event-ID` stays meaningful */
  constructor(firstId: number, backlog = DEFAULT_BACKLOG) {
    this.#lastId = firstId;
    this.#backlog = backlog;
  }

  publish(event: VmEvent): void {
    const numbered = { id: ++this.#lastId, event };
    remember(event.type === "VM_LOG" ? this.#logs : this.#changes, numbered);
    for (const reader of this.#readers) {
      if (reader.queue.length >= this.#backlog) {
        reader.overrun = true;
        reader.queue.length = 0;
        this.#readers.delete(reader);
      } else reader.queue.push(numbered);
      reader.wake();
    }
  }

  /** In force when this returns: what is published from now on is delivered, however late the loop begins. */
  subscribe({
    afterId,
    signal,
  }: {
    readonly afterId?: number;
    readonly signal: AbortSignal;
  }): AsyncIterable<NumberedEvent> {
    const reader: Reader = { queue: [], wake: () => {}, overrun: false };
    if (afterId !== undefined) {
      const missed = [...this.#changes, ...this.#logs].filter(({ id }) => id > afterId);
      reader.queue.push(...missed.sort((a, b) => a.id - b.id));
    }
    this.#readers.add(reader);
    signal.addEventListener("abort", () => this.#leave(reader), { once: true });
    if (signal.aborted) this.#leave(reader);
    return this.#read(reader, signal);
  }

  #leave(reader: Reader): void {
    this.#readers.delete(reader);
    reader.wake();
  }

  async *#read(reader: Reader, signal: AbortSignal): AsyncGenerator<NumberedEvent> {
    try {
      while (!signal.aborted) {
        const next = reader.queue.shift();
        if (next !== undefined) yield next;
        else if (reader.overrun) throw tooSlow();
        else await new Promise<void>((resolve) => (reader.wake = resolve));
      }
    } finally {
      this.#readers.delete(reader);
    }
  }
}

function tooSlow(): VolantError {
  return new VolantError("rate_limited", "events came faster than this reader took them, and it was cut off", {
    hint: "connect again with Last-Event-ID",
  });
}
