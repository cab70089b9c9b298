/** What callers may say of any call, and of those that make something or have an outcome. */

export interface CallOptions {
  /** Gives the call up; it then throws the signal's reason. */
  readonly signal?: AbortSignal | undefined;
}

/** For calls that make something. */
export interface MakeOptions extends CallOptions {
  /**
   * The `Idempotency-Key`. Default: a new one for each call, so that it can be sent again by itself when the connection breaks. Whoever repeats a call
   * after the program was started anew gives its own.
   */
  readonly key?: string | undefined;
}

/** For calls that have an outcome to wait for. */
export interface OutcomeOptions extends CallOptions {
  /** Give up waiting after so many milliseconds, with `timeout`; what was asked for goes on. 0 does not wait; at most 10 minutes. */
  readonly waitMs?: number | undefined;
}

/** The `?wait=` that says so. */
export function waitQuery({ waitMs }: OutcomeOptions): { readonly wait?: string } {
  return waitMs === undefined ? {} : { wait: `${Math.round(waitMs)}ms` };
}
