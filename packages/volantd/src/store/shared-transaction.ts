/** What is asked for in one turn of the event loop, as one transaction. */

interface Part {
  readonly work: () => void;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class SharedTransaction {
  readonly #transaction: (work: () => void) => void;
  readonly #isOpen: () => boolean;
  #parts: Part[] = [];

  /**
   * @param transaction runs work in a transaction, and within another call of itself as a part that is undone alone when it throws
   * @param isOpen whether a transaction is under way: some errors undo the whole of it (sqlite.org/lang_transaction.html)
   */
  constructor(transaction: (work: () => void) => void, isOpen: () => boolean) {
    this.#transaction = transaction;
    this.#isOpen = isOpen;
  }

  /** Resolves once the work has run and is committed. @throws what the work throws, or the commit, and nothing of it is done then */
  run<T>(work: () => T): Promise<T> {
    if (this.#parts.length === 0) setImmediate(() => this.#runAll());
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    let result: T;
    this.#parts.push({ work: () => void (result = work()), resolve: () => resolve(result), reject });
    return promise;
  }

  #runAll(): void {
    const parts = this.#parts;
    this.#parts = [];
    const failures = new Map<Part, unknown>();
    try {
      this.#transaction(() => {
        for (const part of parts) {
          try {
            this.#transaction(part.work);
          } catch (error) {
            if (!this.#isOpen()) throw error;
            failures.set(part, error);
          }
        }
      });
    } catch (error) {
      for (const { reject } of parts) reject(error);
      return;
    }
    for (const part of parts) {
      if (failures.has(part)) part.reject(failures.get(part));
      else part.resolve();
    }
  }
}
