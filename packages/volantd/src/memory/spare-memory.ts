/**
 * When memory that a burst of work has left over is to be given back. V8 lets its heap grow by how much is in use, and asks itself whether it could do with less only after a collection that
 * comes in a quiet time, which may be minutes away; the C library keeps what was freed between what is still in use. Pure.
 */

const MIB = 1024 * 1024;
/** More than this above what is needed is worth a collection, which keeps this process from all else for 40 ms where it looks after a thousand guests. */
const SPARE_BYTES = 12 * MIB;
/** What the C library gives back costs a millisecond, off the event loop: it is asked to in the middle of a burst, too, so that the most is less. */
const TRIM_BYTES = 4 * MIB;
/** The share of time that the event loop works, below which nobody waits for it. A thousand guests that do nothing take 0.07. */
const QUIET = 0.5;
/** So long it has to be quiet before a collection: a burst may pause. */
const PAUSE_MS = 5000;
/** V8 begins to shrink its heap 8 s after a collection (MemoryReducer), bit by bit. */
const SETTLING_MS = 15_000;

export interface MemoryReading {
  readonly nowMs: number;
  /** Of the whole process, resident. */
  readonly rssBytes: number;
  /** How much of the time since the last reading the event loop worked: 0 to 1. */
  readonly busy: number;
}

/** `collect`: garbage. `trim`: have the C library give back what is free. */
export type MemoryWork = "nothing" | "trim" | "collect";

export class SpareMemory {
  /** The least that this process has done with; unknown until the next reading. */
  #neededBytes = Number.POSITIVE_INFINITY;
  /** The least since the C library gave something back last. */
  #trimmedBytes = Number.POSITIVE_INFINITY;
  /** When there was work last, if there was since the last collection: what it used may be garbage now, with nothing to be seen of it from outside. */
  #busyAtMs: number | undefined;
  /** When V8 will have done what a collection has made it do; undefined while there is none. */
  #settledAtMs: number | undefined;

  /** What is to be done at this reading. */
  look({ nowMs, rssBytes, busy }: MemoryReading): MemoryWork {
    if (busy >= QUIET) this.#busyAtMs = nowMs;
    if (this.#settledAtMs !== undefined && nowMs >= this.#settledAtMs) {
      this.#settledAtMs = undefined;
      // What is there after this is in use.
      this.#neededBytes = Number.POSITIVE_INFINITY;
      return this.#trim();
    }
    this.#trimmedBytes = Math.min(this.#trimmedBytes, rssBytes);
    if (this.#settledAtMs === undefined) {
      this.#neededBytes = Math.min(this.#neededBytes, rssBytes);
      const isWorthIt =
        this.#busyAtMs === undefined ? rssBytes >= this.#neededBytes + SPARE_BYTES : nowMs - this.#busyAtMs >= PAUSE_MS;
      if (isWorthIt) {
        this.#busyAtMs = undefined;
        this.#settledAtMs = nowMs + SETTLING_MS;
        return "collect";
      }
    }
    return rssBytes >= this.#trimmedBytes + TRIM_BYTES ? this.#trim() : "nothing";
  }

  #trim(): MemoryWork {
    this.#trimmedBytes = Number.POSITIVE_INFINITY;
    return "trim";
  }
}
