/**
 * What happens to VMs, told to whoever listens. Events are kept in the store and told once they are durable there, in the order of their ids; lines of logs are
 * told in that order, too, and remembered here, the last ones and for this run only: logs are kept elsewhere. Nothing here ever waits for a reader: one
 * that catches up reads the store at its own pace, and one that does not take live events is cut off.
 */
import { VolantError, type VmEvent, type VmEventGap } from "@volant/contract";
import { FIRST_EVENT_ID } from "../store/store.ts";
import type { Store } from "../store/store.ts";
import { isSince, isWanted } from "./event-filter.ts";
import type {
  EventFeed,
  EventFilter,
  EventGap,
  EventListOptions,
  EventSubscription,
  NumberedEvent,
  SubscribeOptions,
} from "./use-cases.ts";

/** Lines of logs that are remembered. */
const REMEMBERED_LOGS = 1000;
/** A reader that has this many live events still to take is cut off. */
const DEFAULT_BACKLOG = 2000;
/** While so many wait for the disk, lines of logs are not told. */
const MOST_UNTOLD = 5000;
/** How many events are told before readers have a turn to take them: a burst is no reason to cut one off. */
const TOLD_AT_ONCE = 500;
/** How many kept events are read at a time. */
const PAGE = 200;

export type EventStore = Pick<Store, "addEvent" | "eventMarks" | "events" | "settled" | "takeEventId">;

/** One that was published and not told yet. */
interface Published {
  readonly id: number;
  /** Absent where the store has it. */
  readonly log?: VmEvent;
}

class Reader {
  readonly filter: EventFilter;
  /** Kept events that it has still to take, before those that are queued. */
  page: NumberedEvent[] = [];
  /** Live events that it has still to take. */
  queue: NumberedEvent[] = [];
  /** The last one that it took. */
  taken: number;
  /** All up to this id was taken, is in the page, or is not for it. */
  caughtTo: number;
  /** Up to here the filter's time counts. */
  readonly sinceThrough: number;
  /** Whether live events are queued for it; until then it reads the store. */
  live: boolean;
  overrun = false;
  /** Tells a reader that waits that there is something to take. */
  wake: () => void = () => {};

  constructor(filter: EventFilter, start: { readonly after: number; readonly sinceThrough: number; live: boolean }) {
    this.filter = filter;
    this.taken = start.after;
    this.caughtTo = start.after;
    this.sinceThrough = start.sinceThrough;
    this.live = start.live;
  }

  /** Has it read the store again, from where it is. */
  fallBack(): void {
    this.live = false;
    this.page = [];
    this.queue = [];
    this.caughtTo = this.taken;
    this.wake();
  }

  cutOff(): void {
    this.overrun = true;
    this.queue = [];
  }
}

export class EventHub implements EventFeed {
  readonly #store: EventStore;
  readonly #backlog: number;
  readonly #readers = new Set<Reader>();
  readonly #logs: NumberedEvent[] = [];
  readonly #published: Published[] = [];
  #telling: Promise<void> | undefined;
  #publishedId: number;
  #toldId: number;

  constructor(store: EventStore, backlog = DEFAULT_BACKLOG) {
    this.#store = store;
    this.#backlog = backlog;
    this.#publishedId = store.eventMarks().last;
    this.#toldId = this.#publishedId;
  }

  /**
   * Keeps an event, and tells it once that is durable; one whose transaction is undone is not told. What the event tells of is to be written in the same
   * transaction ({@link Store.together}).
   *
   * @throws whatever keeps the store from writing
   */
  publish(event: VmEvent): void {
    const log = event.type === "VM_LOG" ? event : undefined;
    if (log !== undefined && this.#published.length >= MOST_UNTOLD) return;
    const id = log === undefined ? this.#store.addEvent(event) : this.#store.takeEventId();
    this.#publishedId = id;
    this.#published.push(log === undefined ? { id } : { id, log });
    this.#telling ??= this.#tellAll();
  }

  /** Resolves when all that was published so far is told. */
  async told(): Promise<void> {
    await this.#telling;
  }

  async #tellAll(): Promise<void> {
    // By then the transaction that the first one is part of has ended, and what was published with it shares one wait.
    await Promise.resolve();
    while (this.#published.length > 0) {
      const count = this.#published.length;
      // What became of the write is seen in the store: what is not there has not happened.
      await this.#store.settled().catch(() => {});
      for (let left = count; left > 0; left -= TOLD_AT_ONCE) {
        this.#tell(this.#published.splice(0, Math.min(left, TOLD_AT_ONCE)));
        if (left > TOLD_AT_ONCE) await new Promise(setImmediate);
      }
    }
    this.#telling = undefined;
  }

  #tell(published: readonly Published[]): void {
    const through = published.at(-1)?.id ?? this.#toldId;
    let kept: readonly NumberedEvent[] = [];
    try {
      const isStored = published.some(({ log }) => log === undefined);
      if (isStored && this.#readers.size > 0) kept = this.#kept(this.#toldId, through);
    } catch {
      // The store can't be read. Readers look for themselves, from where they are, and fail with what it says.
      for (const reader of this.#readers) reader.fallBack();
    }
    const logs = published.flatMap(({ id, log }) => (log === undefined ? [] : [{ id, event: log }]));
    this.#logs.push(...logs);
    this.#logs.splice(0, this.#logs.length - REMEMBERED_LOGS);
    const events = logs.length === 0 ? kept : inOrder([...kept, ...logs]);
    this.#toldId = through;
    for (const reader of this.#readers) this.#queue(reader, events);
  }

  /** Reads what is kept in a range, and passes over nothing, however much that is. */
  #kept(after: number, through: number): NumberedEvent[] {
    const found: NumberedEvent[] = [];
    for (;;) {
      const page = this.#store.events({ after: found.at(-1)?.id ?? after, through, limit: PAGE });
      found.push(...page);
      if (page.length < PAGE) return found;
    }
  }

  #queue(reader: Reader, events: readonly NumberedEvent[]): void {
    if (!reader.live) return;
    for (const event of events) {
      if (event.id <= reader.caughtTo || !isWanted(reader.filter, event.event)) continue;
      if (reader.queue.length >= this.#backlog) {
        reader.cutOff();
        this.#readers.delete(reader);
        break;
      }
      reader.queue.push(event);
    }
    reader.wake();
  }

  subscribe({ afterId, filter = {}, signal }: SubscribeOptions): EventSubscription {
    const gap = this.#firstGap({ afterId, sinceMs: filter.sinceMs });
    const live = afterId === undefined && filter.sinceMs === undefined;
    // Without an id of ours it begins with the first that is kept.
    const start = gap === undefined && afterId !== undefined ? afterId : this.#store.eventMarks().dropped;
    const after = live ? this.#publishedId : start;
    const reader = new Reader(filter, { after, live, sinceThrough: afterId === undefined ? this.#toldId : 0 });
    this.#readers.add(reader);
    const leave = () => {
      this.#readers.delete(reader);
      reader.wake();
    };
    signal.addEventListener("abort", leave, { once: true });
    if (signal.aborted) leave();
    const items = this.#read(reader, gap, signal);
    const position = () => this.#position(reader);
    return {
      [Symbol.asyncIterator]: () => items,
      get position() {
        return position();
      },
    };
  }

  #position(reader: Reader): number {
    if (reader.page.length > 0 || reader.queue.length > 0 || reader.overrun) return reader.taken;
    return Math.max(reader.taken, reader.caughtTo, reader.live ? this.#toldId : 0);
  }

  /** What is known to be missing from the beginning. */
  #firstGap({ afterId, sinceMs }: { readonly afterId: number | undefined; readonly sinceMs: number | undefined }) {
    const { last, dropped } = this.#store.eventMarks();
    if (afterId !== undefined) {
      const ids = { after: afterId, kept_after: dropped };
      if (afterId > last) return { ...ids, message: `event ${afterId} was never told here: all that is kept follows` };
      if (afterId > 0 && afterId < FIRST_EVENT_ID) return { ...ids, message: `events after ${afterId} were not kept` };
      return undefined;
    }
    if (sinceMs === undefined || dropped === 0) return undefined;
    const oldest = this.#store.events({ limit: 1 })[0]?.event.timestamp;
    if (oldest !== undefined && Date.parse(oldest) <= sinceMs) return undefined;
    const kept = oldest === undefined ? "none is kept" : `the oldest that is kept is of ${oldest}`;
    return { kept_after: dropped, message: `events of that time may be missing: ${kept}` };
  }

  async *#read(
    reader: Reader,
    gap: VmEventGap | undefined,
    signal: AbortSignal,
  ): AsyncGenerator<NumberedEvent | EventGap> {
    try {
      if (gap !== undefined) yield { gap };
      while (!signal.aborted) {
        const next = reader.page.shift() ?? reader.queue.shift();
        if (next !== undefined) {
          reader.taken = next.id;
          yield next;
        } else if (reader.overrun) throw tooSlow();
        else if (!reader.live) {
          const missed = this.#missed(reader);
          if (missed !== undefined) yield { gap: missed };
          else this.#catchUp(reader);
        } else await new Promise<void>((resolve) => (reader.wake = resolve));
      }
    } finally {
      this.#readers.delete(reader);
    }
  }

  /** Moves a reader on over what was dropped before it has read it, and over what a restore has lost. */
  #missed(reader: Reader): VmEventGap | undefined {
    const { caughtTo } = reader;
    const { dropped, lost } = this.#store.eventMarks();
    const isLost = lost !== undefined && dropped < lost.before && caughtTo >= lost.after && caughtTo < lost.before;
    if (!isLost && dropped <= caughtTo) return undefined;
    const keptAfter = isLost ? lost.before : dropped;
    reader.taken = reader.caughtTo = keptAfter;
    const why = isLost ? "may be missing: a backup was restored" : "are no longer kept";
    const message = `events after ${caughtTo} up to ${keptAfter} ${why}`;
    return { after: caughtTo, kept_after: keptAfter, message };
  }

  /** The next page for a reader that is behind. With the last one it is live: what is told from then on is queued for it. */
  #catchUp(reader: Reader): void {
    const { filter, caughtTo, sinceThrough } = reader;
    const bySince = filter.sinceMs !== undefined && caughtTo < sinceThrough;
    const wanted = bySince ? filter : { ...filter, sinceMs: undefined };
    const { lost } = this.#store.eventMarks();
    const all = bySince ? sinceThrough : this.#toldId;
    // What is beyond a hole comes once that is told.
    const through = lost !== undefined && caughtTo < lost.after ? Math.min(lost.after, all) : all;
    const kept = this.#store.events({ after: caughtTo, through, filter: wanted, limit: PAGE });
    const isLast = kept.length < PAGE;
    const end = isLast ? through : (kept.at(-1)?.id ?? through);
    const logs = this.#logs.filter(
      ({ id, event }) => id > caughtTo && id <= end && isWanted(wanted, event) && isSince(wanted, event),
    );
    reader.page = inOrder([...kept, ...logs]);
    reader.caughtTo = Math.max(caughtTo, end);
    reader.live = isLast && through === this.#toldId;
  }

  list({ filter, after, before, limit }: EventListOptions): readonly NumberedEvent[] {
    const through = Math.min(this.#toldId, (before ?? Number.MAX_SAFE_INTEGER) - 1);
    return this.#store.events({ after, through, filter, limit, newest: true });
  }
}

function inOrder(events: NumberedEvent[]): NumberedEvent[] {
  return events.sort((a, b) => a.id - b.id);
}

function tooSlow(): VolantError {
  return new VolantError("rate_limited", "events came faster than this reader took them, and it was cut off", {
    hint: "connect again with Last-Event-ID",
  });
}
