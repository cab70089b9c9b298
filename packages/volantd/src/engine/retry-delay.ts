import { backOffMs, type BackOff } from "../model/back-off.ts";

const RETRIES: BackOff = { firstMs: 250, lastMs: 10_000 };

/** Milliseconds until the next attempt after so many that failed before this one. */
export function retryDelay(failures: number): number {
  return backOffMs(failures, RETRIES);
}
