/** An agent that has stopped answering: first shown, then, where a policy says that the VM is to be started again, taken for an end. Pure. */
import type { ObservedGuest } from "./observed.ts";

/** The link tells of a silence after 1.1 s; one that begins with a broken link is given as long to be mended. */
const SHOWN_AFTER_MS = 1000;

/** When the silence of a generation's agent is something to show; undefined when it is not silent. */
export function silenceShownAtMs(guest: ObservedGuest | undefined, generation: number): number | undefined {
  if (guest?.generation !== generation || guest.silentSinceMs === undefined) return undefined;
  return guest.silentSinceMs + SHOWN_AFTER_MS;
}

/** Whether users are told of it. */
export function isSilent(guest: ObservedGuest | undefined, generation: number, nowMs: number): boolean {
  const shownAtMs = silenceShownAtMs(guest, generation);
  return shownAtMs !== undefined && nowMs >= shownAtMs;
}

/**
 * When a silent agent's guest counts as hung; undefined when it is not silent, or is to be left alone. Time in which it is paused, or could not
 * be heard by a host that is out of file descriptors, say, does not count.
 */
export function hungAtMs(
  guest: ObservedGuest | undefined,
  generation: number,
  limitMs: number | undefined,
): number | undefined {
  if (limitMs === undefined || guest?.generation !== generation || guest.silentSinceMs === undefined) return undefined;
  // Once it may be blamed again it gets the whole time.
  return Math.max(guest.silentSinceMs, guest.excusedAtMs ?? Number.NEGATIVE_INFINITY) + limitMs;
}
