/** How long a VM's start takes, and which part of it took how long: told from its steps. Pure. */
import type { StepKind } from "../plan/step.ts";
import type { StepDone } from "./telemetry.ts";

/**
 * Parts of a start, in their order. `network`: policy, tap, neighbour. `launch`: the hypervisor's process. `boot`: from there until the agent calls. `configure`: the
 * agent takes the VM's configuration. `workload`: until the workload has started and, where there is a health check, is healthy.
 */
export const START_PHASES = ["network", "launch", "boot", "configure", "workload"] as const;
export type StartPhase = (typeof START_PHASES)[number];

/** A start that has come to its end: milliseconds of each part, and in all. */
export interface StartTimes {
  readonly vmId: number;
  readonly startedMs: number;
  readonly endedMs: number;
  readonly phases: readonly { readonly phase: StartPhase; readonly startedMs: number; readonly endedMs: number }[];
}

/** The steps that a part ends with. What comes before the first of them is the network's. */
const ENDS: Readonly<Partial<Record<StepKind, StartPhase>>> = {
  launch: "launch",
  attach_guest: "boot",
  configure_guest: "configure",
  record_running: "workload",
};

const BEGINS: ReadonlySet<StepKind> = new Set([
  "bring_bridge_up",
  "put_policy",
  "create_tap",
  "set_neighbour",
  "launch",
]);

/** After these the VM does not start any more. */
const BREAKS: ReadonlySet<StepKind> = new Set(["record_end", "record_hang", "record_stopped", "delete_row"]);

interface Start {
  readonly startedMs: number;
  /** When each part ended. */
  readonly ends: Map<StartPhase, number>;
}

export class StartClock {
  readonly #starts = new Map<number, Start>();

  /** VMs that are starting now. */
  get size(): number {
    return this.#starts.size;
  }

  /** Takes a step in. Gives the times of a start that it completes; a VM that was adopted in the middle of its start has none. */
  see({ vmId, kind, startedMs, endedMs, failure }: StepDone): StartTimes | undefined {
    if (failure !== undefined) return undefined;
    if (BREAKS.has(kind)) {
      this.#starts.delete(vmId);
      return undefined;
    }
    let start = this.#starts.get(vmId);
    if (start === undefined) {
      if (!BEGINS.has(kind)) return undefined;
      start = { startedMs, ends: new Map() };
      this.#starts.set(vmId, start);
    }
    if (kind === "launch") start.ends.set("network", startedMs);
    const phase = ENDS[kind];
    if (phase === undefined) return undefined;
    start.ends.set(phase, endedMs);
    if (phase !== "workload") return undefined;
    this.#starts.delete(vmId);
    // A repair of a running VM's tap looks like the beginning of a start.
    return start.ends.has("launch") ? timesOf(vmId, start) : undefined;
  }
}

function timesOf(vmId: number, { startedMs, ends }: Start): StartTimes {
  let fromMs = startedMs;
  const phases = START_PHASES.flatMap((phase) => {
    const endedMs = ends.get(phase);
    if (endedMs === undefined) return [];
    const part = { phase, startedMs: fromMs, endedMs };
    fromMs = endedMs;
    return [part];
  });
  return { vmId, startedMs, endedMs: fromMs, phases };
}
