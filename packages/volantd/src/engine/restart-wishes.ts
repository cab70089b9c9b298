/** What of a VM's restart policy the planner needs: from its row, and from what the engine has seen of it. */
import { restartPolicy, wantsRestart } from "../model/restart-policy.ts";
import type { DesiredVm } from "../plan/observed.ts";
import { restartDelayMs, restartDueMs, type RestartTimes } from "../plan/restart.ts";
import type { VmRecord } from "../store/store.ts";
import type { Lane } from "./lane.ts";

/** After this a guest whose agent is silent counts as hung: many times what one takes to answer under emulation on a busy host. */
export const DEFAULT_HANG_TIMEOUT_MS = 30_000;

export interface RestartClock {
  /** The wall clock, in milliseconds since the epoch. */
  readonly wallMs: number;
  /** The monotonic clock. */
  readonly nowMs: number;
}

export interface RestartLimits {
  readonly times: RestartTimes;
  /** 0: a hung guest is left alone. */
  readonly hangTimeoutMs: number;
}

type Wishes = Pick<DesiredVm, "restart" | "hangLimitMs" | "steadyAtMs">;

/** The wishes. When a restart is due is kept in the lane. */
export function restartWishes(record: VmRecord, lane: Lane, clock: RestartClock, limits: RestartLimits): Wishes {
  const { times, hangTimeoutMs } = limits;
  const { generation, endedGeneration, endedStatus, endedCause, desired, failures, restartAtMs } = record;
  const policy = restartPolicy(record);
  if (desired !== "running") return {};
  if (endedGeneration !== generation) {
    lane.restart = undefined;
    const { steady } = lane;
    const isSteady = failures > 0 && steady?.generation === generation;
    return {
      // Who wants no restart may want to look at a guest that hangs.
      hangLimitMs: policy === "no" || hangTimeoutMs === 0 ? undefined : hangTimeoutMs,
      steadyAtMs: isSteady ? steady.sinceMs + times.steadyMs : undefined,
    };
  }
  if (!wantsRestart(policy, { status: endedStatus ?? "crashed", cause: endedCause })) return {};
  if (restartAtMs === undefined) return { restart: { dueAtMs: undefined } };
  if (lane.restart?.generation !== generation) {
    const delayMs = restartDelayMs(failures - 1, times);
    lane.restart = { generation, dueAtMs: restartDueMs({ restartAtMs, delayMs, ...clock }) };
  }
  return { restart: { dueAtMs: lane.restart.dueAtMs } };
}
