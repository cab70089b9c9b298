/** What was used last, by its key: a few of many, of which each is cheap to make again. */
export class Recent<V> {
  readonly #most: number;
  /** The one that was put last comes last. */
  readonly #values = new Map<string, V>();

  /** @param most how many are kept */
  constructor(most: number) {
    this.#most = most;
  }

  get(key: string): V | undefined {
    return this.#values.get(key);
  }

  /** Keeps a value, in place of the one that was put longest ago where there are too many. */
  put(key: string, value: V): void {
    this.#values.delete(key);
    this.#values.set(key, value);
    if (this.#values.size <= this.#most) return;
    for (const oldest of this.#values.keys()) {
      this.#values.delete(oldest);
      return;
    }
  }

  clear(): void {
    this.#values.clear();
  }
}
