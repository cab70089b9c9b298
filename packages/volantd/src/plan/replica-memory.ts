/** What is remembered of a replica between two looks: since when it is as it is, and how often it ended of late. Pure. */
import { backOffMs } from "../model/back-off.ts";
import type { ReplicaCondition } from "./plan-deployment.ts";

/** Times are milliseconds of one clock. */
export interface ReplicaMemory {
  readonly version: number;
  /** Since when it has not been ready, for long enough, with this version. */
  readonly unreadySinceMs: number | undefined;
  readonly readySinceMs: number | undefined;
  /** Since when its agent has not said how it is. */
  readonly unknownSinceMs: number | undefined;
  /** Ends without a long time of health between them. */
  readonly ends: number;
  /** The last start that was seen to have ended. */
  readonly endedGeneration: number;
  readonly startAtMs: number | undefined;
}

export interface ReplicaSight {
  readonly version: number;
  readonly generation: number;
  readonly condition: ReplicaCondition;
}

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 60_000;
/** Who was ready for so long is well: the next end is a first one again. */
export const WELL_AFTER_MS = 60_000;
/** A running guest's agent connects to a new volantd within moments; one that does not is not ready. */
export const UNKNOWN_FOR_MS = 30_000;

/** How long a replica stays down after so many ends: not at all after the first one, then 1 s, twice that each time, and at most a minute. */
export function pauseMs(ends: number): number {
  return ends <= 1 ? 0 : backOffMs(ends - 2, { firstMs: FIRST_PAUSE_MS, lastMs: LONGEST_PAUSE_MS });
}

/**
 * @param before the answer to the last look; undefined at the first one, also after a restart of volantd: nothing of it has to survive
 * @param minReadyMs how long is long enough
 */
export function remember(
  before: ReplicaMemory | undefined,
  sight: ReplicaSight,
  nowMs: number,
  minReadyMs = 0,
): ReplicaMemory {
  const { version, generation, condition } = sight;
  const known = before?.version === version ? before : undefined;
  const isReady = condition === "ready";
  const readySinceMs = isReady ? (known?.readySinceMs ?? nowMs) : undefined;
  const isSettled = readySinceMs !== undefined && nowMs - readySinceMs >= minReadyMs;
  const wasWell = known?.readySinceMs !== undefined && nowMs - known.readySinceMs >= WELL_AFTER_MS;
  const endsBefore = wasWell ? 0 : (known?.ends ?? 0);
  const isNewEnd = condition === "ended" && known?.endedGeneration !== generation;
  const ends = isNewEnd ? endsBefore + 1 : endsBefore;
  return {
    version,
    unreadySinceMs: isSettled ? undefined : (known?.unreadySinceMs ?? nowMs),
    readySinceMs,
    unknownSinceMs: condition === "unknown" ? (known?.unknownSinceMs ?? nowMs) : undefined,
    ends,
    endedGeneration: isNewEnd ? generation : (known?.endedGeneration ?? 0),
    startAtMs: isNewEnd ? nowMs + pauseMs(ends) : condition === "ended" ? known?.startAtMs : undefined,
  };
}

/** What the plan goes by: nobody waits for ever for word of an agent. */
export function judged(condition: ReplicaCondition, memory: ReplicaMemory, nowMs: number): ReplicaCondition {
  const { unknownSinceMs } = memory;
  return unknownSinceMs !== undefined && nowMs - unknownSinceMs >= UNKNOWN_FOR_MS ? "unready" : condition;
}
