/**
 * Requests that make something, told apart by their `Idempotency-Key`: a repetition gets the first one's answer, while that is under way as well as after it,
 * also from another volantd. What failed made nothing, and is tried anew.
 */
import { createHash } from "node:crypto";
import { VolantError } from "@volant/contract";
import type { KeyedRequest, Store } from "../store/store.ts";

interface UnderWay {
  readonly fingerprint: string;
  readonly answer: Promise<unknown>;
}

/** The same text for values that differ in the order of their fields only. */
function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== "object" || value === null) return value;
  const fields = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(fields.map(([key, field]) => [key, canonical(field)]));
}

function fingerprintOf(request: unknown): string {
  return createHash("sha256")
    .update(JSON.stringify(canonical(request)))
    .digest("hex");
}

/** What a request is written down with, beside its answer. */
export type Keyed = Omit<KeyedRequest<never>, "answer">;

export class KeyedRequests {
  readonly #store: Pick<Store, "answeredRequest">;
  readonly #underWay = new Map<string, UnderWay>();

  constructor(store: Pick<Store, "answeredRequest">) {
    this.#store = store;
  }

  /**
   * Carries the request out, or answers as it was answered before.
   *
   * @param make is to write `keyed` down in the transaction that makes what was asked for
   * @throws VolantError `key_reused` when the key was another request's; what `make` throws
   */
  async run<Answer>(
    scope: string,
    key: string | undefined,
    request: unknown,
    make: (keyed: Keyed | undefined) => Promise<Answer>,
  ): Promise<Answer> {
    if (key === undefined) return make(undefined);
    const fingerprint = fingerprintOf(request);
    const place = `${scope} ${key}`;
    const before = this.#underWay.get(place) ?? this.#answered(scope, key);
    if (before !== undefined) {
      if (before.fingerprint !== fingerprint) throw reused(key);
      return (await before.answer) as Answer;
    }
    const answer = make({ scope, key, fingerprint });
    this.#underWay.set(place, { fingerprint, answer });
    try {
      return await answer;
    } finally {
      this.#underWay.delete(place);
    }
  }

  #answered(scope: string, key: string): UnderWay | undefined {
    const found = this.#store.answeredRequest(scope, key);
    if (found === undefined) return undefined;
    return { fingerprint: found.fingerprint, answer: Promise.resolve(JSON.parse(found.answer)) };
  }
}

function reused(key: string): VolantError {
  return new VolantError("key_reused", `the Idempotency-Key ${JSON.stringify(key)} was used for another request`, {
    hint: "send the request as it was, or with a key of its own",
  });
}
