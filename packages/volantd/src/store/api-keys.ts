import type { DatabaseSync, StatementSync } from "node:sqlite";
import { VolantError, type Scope } from "@volant/contract";
import { Statements } from "./statements.ts";

/** What is remembered of an API key: never the key itself. */
export interface ApiKeyRecord {
  /** Never reused. */
  readonly id: number;
  readonly name: string;
  readonly scope: Scope;
  /** SHA-256 of the key, 32 bytes. */
  readonly digest: Buffer;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly lastUsedAt: string | undefined;
}

/** The port to API keys. Every method is one transaction. */
export interface ApiKeyStore {
  /** By name. */
  list(): readonly ApiKeyRecord[];
  /** @throws VolantError `exists` */
  add(key: { readonly name: string; readonly scope: Scope; readonly digest: Buffer }): ApiKeyRecord;
  /** @returns whether there was one */
  remove(id: number): boolean;
  recordUse(id: number, at: Date): void;
}

export interface ApiKeysOptions {
  readonly database: DatabaseSync;
  readonly now: () => Date;
  readonly transaction: <T>(work: () => T) => T;
}

function keyRecord(row: Record<string, unknown>): ApiKeyRecord {
  const lastUsedAt = row["last_used_at"];
  return {
    id: Number(row["id"]),
    name: String(row["name"]),
    scope: row["scope"] as Scope,
    digest: Buffer.from(row["digest"] as Uint8Array),
    createdAt: String(row["created_at"]),
    lastUsedAt: lastUsedAt === null ? undefined : String(lastUsedAt),
  };
}

export class ApiKeys implements ApiKeyStore {
  readonly #options: ApiKeysOptions;
  readonly #statements: Statements;

  constructor(options: ApiKeysOptions) {
    this.#options = options;
    this.#statements = new Statements(options.database);
  }

  #sql(text: string): StatementSync {
    return this.#statements.get(text);
  }

  list(): readonly ApiKeyRecord[] {
    return this.#sql("SELECT * FROM api_keys ORDER BY name").all().map(keyRecord);
  }

  add({ name, scope, digest }: Parameters<ApiKeyStore["add"]>[0]): ApiKeyRecord {
    return this.#options.transaction(() => {
      if (this.#sql("SELECT 1 FROM api_keys WHERE name = ?").get(name) !== undefined) {
        throw new VolantError("exists", `an API key named "${name}" exists already`);
      }
      const createdAt = this.#options.now().toISOString();
      const { lastInsertRowid } = this.#sql(
        "INSERT INTO api_keys (name, scope, digest, created_at) VALUES (?, ?, ?, ?)",
      ).run(name, scope, digest, createdAt);
      return { id: Number(lastInsertRowid), name, scope, digest, createdAt, lastUsedAt: undefined };
    });
  }

  remove(id: number): boolean {
    return this.#options.transaction(() => this.#sql("DELETE FROM api_keys WHERE id = ?").run(id).changes > 0);
  }

  recordUse(id: number, at: Date): void {
    this.#options.transaction(() =>
      this.#sql("UPDATE api_keys SET last_used_at = ? WHERE id = ?").run(at.toISOString(), id),
    );
  }
}
