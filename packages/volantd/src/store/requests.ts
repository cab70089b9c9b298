import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { AnsweredRequest, KeyedRequest } from "./store.ts";

/** How long an answer is remembered. As long as Stripe's and others' keys live: longer than anybody tries again. */
const REMEMBERED_MS = 24 * 60 * 60 * 1000;
/** No more than so many: a client that never uses a key twice must not fill the disk. An answer has about 1 KiB. */
const MOST = 10_000;

/** Requests with an `Idempotency-Key`. {@link remember} is part of a transaction that its caller has begun: it stands and falls with what was made. */
export class Requests {
  readonly #find: StatementSync;
  readonly #insert: StatementSync;
  readonly #prune: StatementSync;
  readonly #count: StatementSync;
  readonly #evict: StatementSync;

  constructor(database: DatabaseSync) {
    // A clock that was set back makes entries of the future, which are none to rely on.
    const valid = "created_at > ? AND created_at < ?";
    this.#find = database.prepare(`SELECT fingerprint, answer FROM requests WHERE scope = ? AND key = ? AND ${valid}`);
    this.#insert = database.prepare(
      "INSERT OR REPLACE INTO requests (scope, key, fingerprint, answer, created_at) VALUES (?, ?, ?, ?, ?)",
    );
    this.#prune = database.prepare(`DELETE FROM requests WHERE NOT (${valid})`);
    this.#count = database.prepare("SELECT count(*) AS count FROM requests");
    this.#evict = database.prepare(
      "DELETE FROM requests WHERE (scope, key) IN (SELECT scope, key FROM requests ORDER BY created_at LIMIT ?)",
    );
  }

  find(scope: string, key: string, nowMs: number): AnsweredRequest | undefined {
    const row = this.#find.get(scope, key, nowMs - REMEMBERED_MS, nowMs + REMEMBERED_MS);
    return row === undefined ? undefined : { fingerprint: String(row["fingerprint"]), answer: String(row["answer"]) };
  }

  remember<Made>(request: KeyedRequest<Made> | undefined, made: Made, nowMs: number): void {
    if (request === undefined) return;
    const { scope, key, fingerprint, answer } = request;
    this.#prune.run(nowMs - REMEMBERED_MS, nowMs + REMEMBERED_MS);
    const tooMany = Number(this.#count.get()?.["count"]) - (MOST - 1);
    if (tooMany > 0) this.#evict.run(tooMany);
    this.#insert.run(scope, key, fingerprint, answer(made), nowMs);
  }
}
