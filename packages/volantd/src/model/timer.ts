/** Timers of 2^31 ms or more fire at once (Node's documentation of setTimeout). */
export const LONGEST_TIMER_MS = 2_147_483_647;
