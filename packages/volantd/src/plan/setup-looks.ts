/**
 * When to look whether what set-up recorded is whole: soon after somebody changed something, rarely enough to cost nothing, and more and more
 * slowly where somebody removes again and again what is put back. Pure; all times are milliseconds of one monotonic clock.
 */
import { backOffMs } from "../model/back-off.ts";

/** What comes within this time is looked at together: who reloads a firewall does so in several transactions. */
export const GATHER_MS = 50;
/** From the end of a look to the next one's beginning, at least; more, where looks take long. */
export const LEAST_PAUSE_MS = 300;
const PAUSE_OF_LOOK = 4;
export const LONGEST_PAUSE_MS = 5000;
/** How often to look where the kernel tells nobody of changes: what is missing is to be back within two seconds. */
export const UNTOLD_EVERY_MS = 1200;
/** How long to wait for a set-up or an undo that is at work, which tells nobody that it has ended. */
export const BUSY_EVERY_MS = 5000;
/** Damage that is found so soon after other damage was, or after what was waited for since, is of the same quarrel. */
export const QUARREL_WITHIN_MS = 3000;
/** Damage of one quarrel that is put right without delay: more than what any reload does. */
export const PATIENT_WITH = 30;
export const LONGEST_DELAY_MS = 30_000;

export interface LookHistory {
  /** When somebody changed something that no look has seen. */
  readonly doubtedAtMs: number | undefined;
  /** The last look; it may have been none. */
  readonly endedAtMs: number;
  readonly tookMs: number;
  readonly found: "whole" | "damaged" | "busy" | undefined;
  /** Nothing tells of changes. */
  readonly untold: boolean;
  /** How often damage was found in this quarrel, and when last. */
  readonly quarrel: { readonly count: number; readonly lastAtMs: number };
}

export interface Look {
  readonly beganAtMs: number;
  readonly endedAtMs: number;
  readonly found: "whole" | "damaged" | "busy";
  readonly untold: boolean;
}

export const NO_LOOKS: LookHistory = {
  doubtedAtMs: undefined,
  endedAtMs: Number.NEGATIVE_INFINITY,
  tookMs: 0,
  found: undefined,
  untold: false,
  quarrel: { count: 0, lastAtMs: Number.NEGATIVE_INFINITY },
};

/** How long what is found missing in the middle of a quarrel is left so. */
export function quarrelDelayMs(count: number): number {
  return count <= PATIENT_WITH ? 0 : backOffMs(count - PATIENT_WITH - 1, { firstMs: 1000, lastMs: LONGEST_DELAY_MS });
}

/** When the next look is due; undefined while nothing calls for one. */
export function nextLookAtMs(history: LookHistory): number | undefined {
  const { doubtedAtMs, endedAtMs, tookMs, found, untold, quarrel } = history;
  const wanted = [
    ...(doubtedAtMs === undefined ? [] : [doubtedAtMs + GATHER_MS]),
    ...(untold ? [endedAtMs + UNTOLD_EVERY_MS] : []),
    ...(found === "busy" ? [endedAtMs + BUSY_EVERY_MS] : []),
  ];
  if (wanted.length === 0) return undefined;
  const pauseMs = Math.min(LONGEST_PAUSE_MS, Math.max(LEAST_PAUSE_MS, tookMs * PAUSE_OF_LOOK));
  return Math.max(Math.min(...wanted), endedAtMs + pauseMs, quarrel.lastAtMs + quarrelDelayMs(quarrel.count));
}

/** With what somebody changed. */
export function doubted(history: LookHistory, atMs: number): LookHistory {
  return { ...history, doubtedAtMs: history.doubtedAtMs ?? atMs };
}

/** With a look that ended. `doubtedAtMs` is what came after its beginning. */
export function looked(history: LookHistory, look: Look): LookHistory {
  const { beganAtMs, endedAtMs, found, untold } = look;
  const { count, lastAtMs } = history.quarrel;
  const isQuarrel = endedAtMs - lastAtMs < QUARREL_WITHIN_MS + quarrelDelayMs(count);
  const quarrel = found === "damaged" ? { count: isQuarrel ? count + 1 : 1, lastAtMs: endedAtMs } : { count, lastAtMs };
  return { ...history, endedAtMs, tookMs: endedAtMs - beganAtMs, found, untold, quarrel };
}

/** Whether this look is the one after which looks are delayed: the moment to say so. */
export function becameQuarrel(before: LookHistory, after: LookHistory): boolean {
  return quarrelDelayMs(before.quarrel.count) === 0 && quarrelDelayMs(after.quarrel.count) > 0;
}
