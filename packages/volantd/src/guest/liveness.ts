/**
 * Whether the other end of a link answers. It is asked by a ping, again as soon as it has answered and some time has passed. Time in which this process itself
 * was kept from its work says nothing about the other end, and does not count.
 */

export interface LivenessTimes {
  /** From one ping to the next. */
  readonly everyMs: number;
  /** An answer that takes longer is a silence. */
  readonly silentAfterMs: number;
  /** An answer that takes longer will not come any more. */
  readonly endAfterMs: number;
}

export interface LivenessOptions extends LivenessTimes {
  /** Sends a ping; false when that can't be done now. `answered` is called once, or never. */
  readonly ping: (answered: () => void) => boolean;
  /** Bytes that have come from the other end so far: what sends is alive, though its answer waits behind what it sends. */
  readonly received: () => number;
  readonly onSilent: (sinceMs: number) => void;
  readonly onAnswer: () => void;
  readonly onEnd: () => void;
  /** A monotonic clock, in milliseconds. */
  readonly now: () => number;
  /** Calls back after so many milliseconds, unless the function that it gives is called before. Default: {@link laterOnLoop}. */
  readonly later?: (delayMs: number, run: () => void) => () => void;
}

/** A timer that fires so much later than it should tells of a process that had something else to do. */
const LATE_MS = 50;

/** After the timers of a turn comes what has arrived: an answer that is in already is heard before it is missed. */
function laterOnLoop(delayMs: number, run: () => void): () => void {
  let immediate: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => (immediate = setImmediate(run)), delayMs);
  timer.unref();
  return () => {
    clearTimeout(timer);
    clearImmediate(immediate);
  };
}

/** Asks until it is told to stop. */
export function watchLiveness(options: LivenessOptions): () => void {
  const { everyMs, silentAfterMs, endAfterMs, ping, received, onSilent, onAnswer, onEnd, now } = options;
  const { later = laterOnLoop } = options;
  let sentAtMs: number | undefined;
  let isSilent = false;
  let wasLate = false;
  let isStopped = false;
  let heardBytes = 0;
  let cancel = (): void => {};

  function lookIn(delayMs: number): void {
    cancel();
    const dueMs = now() + delayMs;
    cancel = later(delayMs, () => look(Math.max(0, now() - dueMs)));
  }

  function answered(): void {
    if (isStopped || sentAtMs === undefined) return;
    lookIn(Math.max(1, everyMs - (now() - sentAtMs)));
    sentAtMs = undefined;
    if (!isSilent) return;
    isSilent = false;
    onAnswer();
  }

  function ask(): void {
    wasLate = false;
    heardBytes = received();
    if (ping(answered)) sentAtMs = now();
    lookIn(sentAtMs === undefined ? everyMs : silentAfterMs);
  }

  function look(lateMs: number): void {
    if (sentAtMs === undefined) return ask();
    if (lateMs > LATE_MS && !wasLate) {
      // Once for each ping: a host that is always busy must not keep a silence from being told.
      wasLate = true;
      sentAtMs += lateMs;
      return lookIn(LATE_MS);
    }
    const bytes = received();
    if (bytes !== heardBytes) {
      heardBytes = bytes;
      sentAtMs = now();
      if (isSilent) {
        isSilent = false;
        onAnswer();
      }
    }
    const waitedMs = now() - sentAtMs;
    if (waitedMs >= endAfterMs) return onEnd();
    if (waitedMs >= silentAfterMs && !isSilent) {
      isSilent = true;
      onSilent(sentAtMs);
    }
    lookIn(Math.max(1, Math.min(everyMs, (isSilent ? endAfterMs : silentAfterMs) - waitedMs)));
  }

  lookIn(everyMs);
  return () => {
    isStopped = true;
    cancel();
  };
}
