/** When a VM that ended is started again, and when its failures are forgotten. Pure. */
import { backOffMs, type BackOff } from "../model/back-off.ts";
import type { DesiredVm, ObservedVm } from "./observed.ts";
import { isWell } from "./well.ts";

/** Pauses before restarts in a row. */
export interface RestartTimes extends BackOff {
  /** A VM that has been well for so long starts from the first wait again. */
  readonly steadyMs: number;
}

/** Short enough for who waits for a service, long enough that a VM that can't run does not keep its host busy. */
export const RESTART_TIMES: RestartTimes = { firstMs: 1000, lastMs: 60_000, steadyMs: 60_000 };

/**
 * How long to wait before a restart.
 *
 * @param failures ends in a row before the one that it follows
 */
export function restartDelayMs(failures: number, times: RestartTimes): number {
  return backOffMs(failures, times);
}

export interface Scheduled {
  /** By the wall clock, as it was written down: milliseconds since the epoch. */
  readonly restartAtMs: number;
  /** What that was reckoned with. */
  readonly delayMs: number;
  /** The wall clock now. */
  readonly wallMs: number;
  /** The monotonic clock now. */
  readonly nowMs: number;
}

/**
 * The instant of a restart on the monotonic clock. A wall clock that was set back makes nobody wait longer than the whole delay, and one that was set
 * forward only makes this one wait less: the count of failures decides about the next.
 */
export function restartDueMs({ restartAtMs, delayMs, wallMs, nowMs }: Scheduled): number {
  return nowMs + Math.min(delayMs, Math.max(0, restartAtMs - wallMs));
}

/** Since when a generation has been well without a break. */
export interface Steady {
  readonly generation: number;
  readonly sinceMs: number;
}

/** @param before the answer to the last look */
export function steadySince(
  vm: DesiredVm | undefined,
  observed: ObservedVm,
  before: Steady | undefined,
): Steady | undefined {
  if (vm === undefined || vm.desired !== "running" || vm.endedGeneration === vm.generation) return undefined;
  if (!isWell(vm, observed) || observed.guest?.silentSinceMs !== undefined) return undefined;
  return before?.generation === vm.generation ? before : { generation: vm.generation, sinceMs: observed.nowMs };
}
