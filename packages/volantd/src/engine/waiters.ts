import { VolantError } from "@volant/contract";

export interface Wait {
  /** Asked at once, and at each {@link Waiters.notify}; what it throws ends the waiting. */
  readonly done: () => boolean;
  readonly timeoutMs: number;
  /** What is said when the time is over. */
  readonly what: () => string;
  /** Ends the waiting, too: nobody is there for its outcome any more. */
  readonly signal?: AbortSignal | undefined;
  /** Aborted when volantd stops: nothing that is waited for will be seen then. */
  readonly closing: AbortSignal;
}

/** Those who wait for something to become so. */
export class Waiters {
  /** Made when somebody waits: there are as many of these as there are VMs. */
  #checks: Set<() => void> | undefined;

  get count(): number {
    return this.#checks?.size ?? 0;
  }

  /** Something may have become so. */
  notify(): void {
    for (const check of this.#checks ?? []) check();
  }

  /** @throws VolantError `timeout`; `not_ready` when volantd stops first; the signal's reason; what `done` throws */
  async until({ done, timeoutMs, what, signal, closing }: Wait): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const check = () => {
      try {
        if (done()) resolve();
        else if (closing.aborted) reject(new VolantError("not_ready", "volantd is stopping"));
      } catch (error) {
        reject(error as Error);
      }
    };
    const timer = setTimeout(() => reject(new VolantError("timeout", what())), timeoutMs);
    const leave = () => reject(signal?.reason as Error);
    signal?.addEventListener("abort", leave, { once: true });
    const checks = (this.#checks ??= new Set());
    checks.add(check);
    try {
      signal?.throwIfAborted();
      check();
      await promise;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", leave);
      checks.delete(check);
      if (checks.size === 0 && this.#checks === checks) this.#checks = undefined;
    }
  }
}
