import { VolantError } from "@volant/contract";
import type { Patience } from "./use-cases.ts";

/**
 * Whether what is waited for came about: false when time was up, or whoever waited has gone.
 *
 * @throws what the wait throws else
 */
export async function cameAbout(waiting: Promise<void>, { signal }: Patience): Promise<boolean> {
  try {
    await waiting;
    return true;
  } catch (error) {
    if (signal?.aborted === true || (error instanceof VolantError && error.code === "timeout")) return false;
    throw error;
  }
}
