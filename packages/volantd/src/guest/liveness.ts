/**
 * Whether the other end of a link lives. It says so itself every so often, and whatever it sends will do. Pure.
 */

export interface LivenessTimes {
  /** Nothing heard for so long is a silence. */
  readonly silentAfterMs: number;
  /** After so long nothing will come any more. */
  readonly endAfterMs: number;
}

export type LivenessNews = "silent" | "ended";

export class Liveness {
  readonly #times: LivenessTimes;
  #heardMs: number;
  #isSilent = false;

  /** @param nowMs all times are on one monotonic clock */
  constructor(times: LivenessTimes, nowMs: number) {
    this.#times = times;
    this.#heardMs = nowMs;
  }

  /** When something was heard last. */
  get heardMs(): number {
    return this.#heardMs;
  }

  /** Something has been heard. @returns true when that ends a silence that was told */
  hear(nowMs: number): boolean {
    this.#heardMs = nowMs;
    const wasSilent = this.#isSilent;
    this.#isSilent = false;
    return wasSilent;
  }

  /** What there is to tell, each of it once in a silence. */
  look(nowMs: number): LivenessNews | undefined {
    const quietMs = nowMs - this.#heardMs;
    if (quietMs >= this.#times.endAfterMs) return "ended";
    if (quietMs < this.#times.silentAfterMs || this.#isSilent) return undefined;
    this.#isSilent = true;
    return "silent";
  }
}
