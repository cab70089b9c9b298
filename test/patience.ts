/**
 * Waits of tests, each with a bound: what does not come fails its own test, with a sentence that says what was seen instead, and does not hang the
 * file. The bounds are for a machine that is much slower and busier than anybody's own: they tell "never" from "late", and no speed.
 */
import { once, type EventEmitter } from "node:events";

/** Longer than anything takes that a test waits for, a guest's boot under emulation on a busy machine included. */
export const PATIENCE_MS = 120_000;

/** A wait that has come to its bound. */
function timedOut(what: string, seen: string | undefined, limitMs: number): Error {
  return new Error(`${what}: not within ${limitMs} ms${seen === undefined ? "" : `; seen: ${seen}`}`);
}

/**
 * Gives what the promise gives.
 *
 * @param what that is waited for, in words
 * @param seen tells what has been seen, when time is up
 * @throws Error with both, when nothing comes within `limitMs`
 */
export async function within<T>(
  promise: Promise<T>,
  what: string,
  seen: () => string | undefined = () => undefined,
  limitMs = PATIENCE_MS,
): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(timedOut(what, seen(), limitMs)), limitMs);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Waits for an event. A stream, socket or process that ends first will never send it: that is a failure at once.
 *
 * @param what that is waited for, in words
 * @throws Error with what was seen instead; the emitter's own, when it emits `error`
 */
export async function eventOf(
  emitter: EventEmitter,
  name: string,
  what: string,
  seen?: () => string | undefined,
): Promise<unknown[]> {
  const stop = new AbortController();
  const ended = Promise.withResolvers<never>();
  const listeners = ["end", "close", "exit"]
    .filter((end) => end !== name)
    .map((end) => [end, () => ended.reject(new Error(`${what}: "${end}" came instead of "${name}"`))] as const);
  for (const [end, listener] of listeners) emitter.once(end, listener);
  try {
    const waiting = Promise.race([once(emitter, name, { signal: stop.signal }), ended.promise]);
    return await within(waiting, what, seen);
  } finally {
    for (const [end, listener] of listeners) emitter.off(end, listener);
    stop.abort();
  }
}

/** As fetch(), but the whole answer, its body included, must be there in time. */
export async function fetchInTime(url: string | URL, init: RequestInit = {}, limitMs = PATIENCE_MS): Promise<Response> {
  const late = new AbortController();
  const what = `${init.method ?? "GET"} ${String(url)}`;
  setTimeout(() => late.abort(timedOut(what, "no whole answer", limitMs)), limitMs).unref();
  const signals = [late.signal, ...(init.signal ? [init.signal] : [])];
  return fetch(url, { ...init, signal: AbortSignal.any(signals) });
}

const LOOK_EVERY_MS = 5;

/**
 * Looks again and again until something is so that sends no event.
 *
 * @param what that is waited for, in words
 * @throws Error when it is not so within `limitMs`
 */
export async function until(what: string, isSo: () => boolean, limitMs = PATIENCE_MS): Promise<void> {
  const startedMs = performance.now();
  while (!isSo()) {
    if (performance.now() - startedMs > limitMs) throw timedOut(what, undefined, limitMs);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}
