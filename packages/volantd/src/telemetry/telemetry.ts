/** What volantd tells of its own work to whoever measures it: metrics, traces. Told after the fact, so that a listener holds nothing up. Times are of performance.now(). */
import type { StepKind } from "../plan/step.ts";

/** A request that has been answered. */
export interface RequestDone {
  readonly requestId: string;
  readonly method: string;
  /** The route's pattern, such as `/api/v1/vms/:name`; undefined where there is no such route. Never the path that was asked for: there are as many as clients like. */
  readonly route: string | undefined;
  readonly status: number;
  readonly startedMs: number;
  readonly endedMs: number;
  /** The header `traceparent` (W3C Trace Context), as it came. */
  readonly traceParent?: string | undefined;
}

/** A step of a VM's plan that was carried out, or has failed. */
export interface StepDone {
  readonly vmId: number;
  readonly kind: StepKind;
  readonly startedMs: number;
  readonly endedMs: number;
  /** Why it failed. */
  readonly failure?: string | undefined;
}

export interface Telemetry {
  request(done: RequestDone): void;
  step(done: StepDone): void;
}

/** One that tells all of them. */
export function fanOut(listeners: readonly Telemetry[]): Telemetry {
  return {
    request: (done) => listeners.forEach((listener) => listener.request(done)),
    step: (done) => listeners.forEach((listener) => listener.step(done)),
  };
}
