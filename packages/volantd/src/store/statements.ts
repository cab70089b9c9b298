import type { DatabaseSync, StatementSync } from "node:sqlite";

/** A database's statements by their text, each of them prepared once. */
export class Statements {
  readonly #database: DatabaseSync;
  readonly #known = new Map<string, StatementSync>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  get(text: string): StatementSync {
    let statement = this.#known.get(text);
    if (statement === undefined) {
      statement = this.#database.prepare(text);
      this.#known.set(text, statement);
    }
    return statement;
  }
}
