/** Pauses between attempts that fail one after the other. Pure. */

export interface BackOff {
  /** Before the first attempt anew; each further one waits twice as long as the one before. */
  readonly firstMs: number;
  /** The longest pause. */
  readonly lastMs: number;
}

/** 2 to this power is more than any ceiling, and not yet beyond what a number holds. */
const MOST_DOUBLINGS = 30;

/** @param failures in a row before the one that the pause follows */
export function backOffMs(failures: number, { firstMs, lastMs }: BackOff): number {
  return Math.min(lastMs, firstMs * 2 ** Math.min(Math.max(0, failures), MOST_DOUBLINGS));
}
