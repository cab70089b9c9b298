/** How a hypervisor is ended: ask the agent, press the power button, kill; each with a deadline. */
import type { HypervisorProcess } from "../runtime/runtime.ts";
import type { ObservedVm } from "./observed.ts";
import type { Plan, Step } from "./step.ts";

/** How long the guest may take to shut down once its agent was asked, then once its button was pressed. */
export interface StopPatience {
  readonly agentMs: number;
  /** Undefined: the button is not tried. */
  readonly buttonMs: number | undefined;
}

/** Services may need a while to write things down. Docker's stop waits as long. */
export const DEFAULT_STOP_TIMEOUT_MS = 10_000;

/** For a stop or restart. The power button gets half as long again as the agent. */
export function stopPatience(stopTimeoutMs = DEFAULT_STOP_TIMEOUT_MS): StopPatience {
  return { agentMs: stopTimeoutMs, buttonMs: stopTimeoutMs / 2 };
}

/** For a VM whose files go with it: its workload may still say goodbye to others. */
export const DELETE_PATIENCE: StopPatience = { agentMs: 3_000, buttonMs: undefined };

interface Move {
  readonly step?: Step;
  readonly wakeAtMs?: number;
}

function button(process: HypervisorProcess, observed: ObservedVm, patience: StopPatience): Move {
  if (patience.buttonMs === undefined) return { step: { kind: "kill", process } };
  return { step: { kind: "press_power_button", process }, wakeAtMs: observed.nowMs + patience.buttonMs };
}

function nextMove(process: HypervisorProcess, observed: ObservedVm, patience: StopPatience): Move {
  const shutdown = observed.shutdowns.find(
    ({ pid, startTicks }) => pid === process.pid && startTicks === process.startTicks,
  );
  if (shutdown?.buttonAtMs !== undefined) {
    const deadline = shutdown.buttonAtMs + (patience.buttonMs ?? 0);
    return observed.nowMs >= deadline ? { step: { kind: "kill", process } } : { wakeAtMs: deadline };
  }
  if (shutdown?.askedAtMs !== undefined && shutdown.refused !== true) {
    const deadline = shutdown.askedAtMs + patience.agentMs;
    return observed.nowMs >= deadline ? button(process, observed, patience) : { wakeAtMs: deadline };
  }
  const { guest } = observed;
  if (shutdown?.refused !== true && guest?.attached === true && guest.generation === process.generation) {
    return {
      step: { kind: "ask_shutdown", process, graceMs: patience.agentMs },
      wakeAtMs: observed.nowMs + patience.agentMs,
    };
  }
  return button(process, observed, patience);
}

/** One move for each of the processes, and when the next is due if they don't end by themselves. */
export function planStop(
  processes: readonly HypervisorProcess[],
  observed: ObservedVm,
  patience: StopPatience | "none",
): Plan {
  if (patience === "none") return { steps: processes.map((process) => ({ kind: "kill", process })) };
  const moves = processes.map((process) => nextMove(process, observed, patience));
  const wakes = moves.flatMap(({ wakeAtMs }) => (wakeAtMs === undefined ? [] : [wakeAtMs]));
  return {
    steps: moves.flatMap(({ step }) => (step === undefined ? [] : [step])),
    ...(wakes.length === 0 ? {} : { wakeAtMs: Math.min(...wakes) }),
  };
}
