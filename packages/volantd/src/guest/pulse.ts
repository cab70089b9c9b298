/**
 * One timer for all links: a thousand of their own would cost more than all that they look for. What was kept from its work says nothing about anybody else, so a turn that
 * comes late is left out once, and each comes after what has arrived was read.
 */

/** From one turn to the next. */
const EVERY_MS = 100;
/** A timer that fires so much later than it should tells of a process that had something else to do. */
const LATE_MS = 50;

export interface PulseOptions {
  /** A monotonic clock, in milliseconds. */
  readonly now: () => number;
  /** Calls back after so many milliseconds, and after what has arrived by then was read. */
  readonly later: (delayMs: number, run: () => void) => void;
}

/** After the timers of a turn of the event loop comes what has arrived. */
function laterOnLoop(delayMs: number, run: () => void): void {
  setTimeout(() => setImmediate(run), delayMs).unref();
}

export class Pulse {
  readonly #options: PulseOptions;
  readonly #turns = new Set<(nowMs: number) => void>();
  #isRunning = false;
  #wasLate = false;

  constructor(options: PulseOptions = { now: () => performance.now(), later: laterOnLoop }) {
    this.#options = options;
  }

  /** Calls `turn` ten times a second, until the function that it gives is called. */
  every(turn: (nowMs: number) => void): () => void {
    this.#turns.add(turn);
    if (!this.#isRunning) {
      this.#isRunning = true;
      this.#wait(EVERY_MS);
    }
    return () => void this.#turns.delete(turn);
  }

  #wait(delayMs: number): void {
    const { now, later } = this.#options;
    const dueMs = now() + delayMs;
    later(delayMs, () => this.#beat(dueMs));
  }

  #beat(dueMs: number): void {
    if (this.#turns.size === 0) {
      this.#isRunning = false;
      return;
    }
    const nowMs = this.#options.now();
    // Once: a process that is always late must not keep a silence from being told.
    this.#wasLate = nowMs - dueMs > LATE_MS && !this.#wasLate;
    if (this.#wasLate) return this.#wait(LATE_MS);
    for (const turn of this.#turns) turn(nowMs);
    this.#wait(EVERY_MS);
  }
}
