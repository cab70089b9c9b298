/** Token buckets: how often a client may ask. The clock is the caller's. */

export interface Rate {
  readonly perSecond: number;
  /** How many may come at once after a rest. */
  readonly burst: number;
}

interface Bucket {
  tokens: number;
  atMs: number;
}

/** So many clients are told apart; of more, those that were quiet longest are forgotten, and begin anew. */
const MOST_BUCKETS = 10_000;

export class RateLimit {
  readonly #rate: Rate;
  readonly #nowMs: () => number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(rate: Rate, nowMs: () => number) {
    this.#rate = rate;
    this.#nowMs = nowMs;
  }

  /** Takes a token. @returns 0, or for how many seconds to wait, where there is none */
  take(client: string): number {
    const bucket = this.#bucket(client);
    if (bucket.tokens >= 1) {
      bucket.tokens -= 1;
      return 0;
    }
    return this.#waitSeconds(bucket);
  }

  /** For how many seconds to wait; 0 where a token is there. Takes none. */
  look(client: string): number {
    if (!this.#buckets.has(client)) return 0;
    const bucket = this.#bucket(client);
    return bucket.tokens >= 1 ? 0 : this.#waitSeconds(bucket);
  }

  #waitSeconds({ tokens }: Bucket): number {
    return Math.max(1, Math.ceil((1 - tokens) / this.#rate.perSecond));
  }

  #bucket(client: string): Bucket {
    const { perSecond, burst } = this.#rate;
    const nowMs = this.#nowMs();
    const known = this.#buckets.get(client);
    const bucket = known ?? { tokens: burst, atMs: nowMs };
    bucket.tokens = Math.min(burst, bucket.tokens + (Math.max(0, nowMs - bucket.atMs) / 1000) * perSecond);
    bucket.atMs = nowMs;
    // To the end of the line.
    this.#buckets.delete(client);
    this.#buckets.set(client, bucket);
    if (this.#buckets.size > MOST_BUCKETS) {
      const [quiet] = this.#buckets.keys();
      this.#buckets.delete(quiet as string);
    }
    return bucket;
  }
}
