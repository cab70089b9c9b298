/**
 * API keys. A key is 256 random bits, so that one pass of SHA-256 is enough to keep it by: what makes passwords' hashes slow is that people choose passwords
 * which can be guessed, and nobody guesses these. Slow hashes would only let a client without a key make volantd work.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { VolantError, type ApiKey, type CreateApiKeyRequest, type CreatedApiKey } from "@volant/contract";
import type { ApiKeyRecord, ApiKeyStore } from "../store/api-keys.ts";
import type { KeyHolder, KeyUseCases } from "./use-cases.ts";

/** Each request is compared with all of them. */
const MOST_KEYS = 1000;
/** How exact `last_used_at` is: a write for each request would be one too many. */
const USE_RECORDED_MS = 60_000;
/** Tells people and scanners of leaked secrets what it is. */
const KEY_PREFIX = "volant_";
const KEY_BYTES = 32;

export interface KeyServiceOptions {
  readonly keys: ApiKeyStore;
  readonly now: () => Date;
  /** Told when the use of a key can't be written down. */
  readonly onError: (error: unknown) => void;
}

/** What a key is kept and found by. */
export function keyDigest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}

function view({ name, scope, createdAt, lastUsedAt }: ApiKeyRecord): ApiKey {
  return { name, scope, created_at: createdAt, ...(lastUsedAt === undefined ? {} : { last_used_at: lastUsedAt }) };
}

export class KeyService implements KeyUseCases {
  readonly #options: KeyServiceOptions;
  readonly #known: Map<number, ApiKeyRecord>;
  readonly #revoked = new Set<(id: number) => void>();

  constructor(options: KeyServiceOptions) {
    this.#options = options;
    this.#known = new Map(options.keys.list().map((key) => [key.id, key]));
  }

  get count(): number {
    return this.#known.size;
  }

  create({ name, scope }: CreateApiKeyRequest): CreatedApiKey {
    if (this.#known.size >= MOST_KEYS) {
      throw new VolantError("exhausted", `there are ${MOST_KEYS} API keys, and no more are possible`, {
        hint: "revoke what is not used: volar keys list, volar keys revoke",
      });
    }
    const key = `${KEY_PREFIX}${randomBytes(KEY_BYTES).toString("base64url")}`;
    const made = this.#options.keys.add({ name, scope, digest: keyDigest(key) });
    this.#known.set(made.id, made);
    return { ...view(made), key };
  }

  list(): readonly ApiKey[] {
    return [...this.#known.values()].map(view).toSorted((one, other) => (one.name < other.name ? -1 : 1));
  }

  revoke(name: string): void {
    const found = [...this.#known.values()].find((key) => key.name === name);
    if (found === undefined) throw new VolantError("not_found", `there is no API key named "${name}"`);
    this.#options.keys.remove(found.id);
    this.#known.delete(found.id);
    for (const told of this.#revoked) told(found.id);
  }

  find(key: string): KeyHolder | undefined {
    const given = keyDigest(key);
    let found: ApiKeyRecord | undefined;
    // All of them, and digests of equal length: how long it takes tells nothing of how much fits.
    for (const known of this.#known.values()) if (timingSafeEqual(given, known.digest)) found = known;
    return found === undefined ? undefined : { id: found.id, name: found.name, scope: found.scope };
  }

  used(id: number): void {
    const known = this.#known.get(id);
    const now = this.#options.now();
    if (known === undefined) return;
    // Of a clock that was set back, too.
    const sinceMs = known.lastUsedAt === undefined ? Infinity : now.getTime() - Date.parse(known.lastUsedAt);
    if (Math.abs(sinceMs) < USE_RECORDED_MS) return;
    this.#known.set(id, { ...known, lastUsedAt: now.toISOString() });
    try {
      this.#options.keys.recordUse(id, now);
    } catch (error) {
      // A disk that takes nothing must not keep anybody from reading.
      this.#options.onError(error);
    }
  }

  onRevoked(told: (id: number) => void): void {
    this.#revoked.add(told);
  }
}
