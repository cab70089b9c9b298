/**
 * Keeps the start of children apart from what must not be copied into them. Until a child runs its program it has copies of all descriptors of this process, and
 * what closes them then (the kernel, on exec) may come after the start is told to be over: a copy is as if this process had not closed its own.
 */

/** Two kinds of tasks, of which only one is under way at a time, any number of its tasks beside each other. In the order in which they came. */
export class Gate<Kind> {
  readonly #waiting: { readonly kind: Kind; readonly enter: () => void }[] = [];
  #kind: Kind | undefined;
  #inside = 0;

  async run<T>(kind: Kind, task: () => Promise<T>): Promise<T> {
    await new Promise<void>((enter) => {
      this.#waiting.push({ kind, enter });
      this.#admit();
    });
    try {
      return await task();
    } finally {
      this.#inside -= 1;
      this.#admit();
    }
  }

  #admit(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (this.#inside > 0 && this.#kind !== first.kind) return;
      this.#kind = first.kind;
      this.#inside += 1;
      this.#waiting.shift();
      first.enter();
    }
  }
}

const gate = new Gate<"start" | "private">();

/** Starts a child: when nobody is in {@link withoutStarts}. */
export function asStart<T>(task: () => Promise<T>): Promise<T> {
  return gate.run("start", task);
}

/** Runs a task whose descriptors no child gets a copy of: those that it opens, and closes before it is over. */
export function withoutStarts<T>(task: () => Promise<T>): Promise<T> {
  return gate.run("private", task);
}
