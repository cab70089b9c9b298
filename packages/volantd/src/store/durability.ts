/**
 * When commits become durable. SQLite commits into the write-ahead log without waiting for the disk (synchronous = NORMAL: 25 µs); one fdatasync(2)
 * of that log, off the event loop's thread, then makes all of them durable that were made before it began. So writes of one moment share one wait
 * of the disk, and each of them still is a transaction of its own, refused or carried out before its method returns. The log is in order: where a
 * commit is durable, all earlier ones are.
 */
import { VolantError } from "@volant/contract";
import { messageOf } from "../message-of.ts";

export interface DurabilityOptions {
  /** Grows with every change that was committed. */
  readonly position: () => number;
  /** Makes everything durable that was committed before the call. Does not block. */
  readonly sync: () => Promise<void>;
  /**
   * Makes everything durable in another way: after a failed sync the kernel may have dropped what it could not write, and the next sync would succeed
   * without it (https://lwn.net/Articles/752063/). @throws what failed
   */
  readonly rescue: () => void;
  /** Told when syncing fails, and when it works again. */
  readonly onFailure?: (error: unknown) => void;
}

interface Waiter {
  readonly upTo: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** What nobody waits for is durable after this time. */
const UNAWAITED_MS = 500;

export class Durability {
  readonly #options: DurabilityOptions;
  readonly #timer: NodeJS.Timeout;
  /** Nothing is known of what was found: whoever committed it may have died before it was durable. */
  #durable = -1;
  #waiters: Waiter[] = [];
  #running: Promise<void> | undefined;
  #failed = false;

  constructor(options: DurabilityOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.settled().catch(() => {}), UNAWAITED_MS);
    this.#timer.unref();
  }

  /** Whether the last sync failed, and nothing has made good for it yet. */
  get failed(): boolean {
    return this.#failed;
  }

  /** Whether changes up to this position are durable. */
  covers(position: number): boolean {
    return position <= this.#durable;
  }

  /**
   * Resolves when everything up to a position (absent: all that is committed now) is durable.
   *
   * @throws VolantError `not_ready` when the disk fails: it is committed all the same, may be durable or not, and will be once the disk works again
   */
  settled(upTo: number = this.#options.position()): Promise<void> {
    if (this.covers(upTo)) return Promise.resolve();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiters.push({ upTo, resolve, reject });
    this.#running ??= this.#run();
    return promise;
  }

  async #run(): Promise<void> {
    // What is written in the same turn shares one sync.
    await new Promise(setImmediate);
    while (this.#waiters.length > 0) {
      const position = this.#options.position();
      try {
        if (this.#failed) this.restore();
        else {
          await this.#options.sync();
          this.#advance(position);
        }
      } catch (error) {
        this.#failed = true;
        try {
          // At once, while what could not be written is still in memory.
          this.restore();
        } catch {
          this.#options.onFailure?.(error);
          this.#refuse(error);
        }
      }
    }
    // In the turn in which nobody waited any more: whoever comes after it begins anew.
    this.#running = undefined;
  }

  /** Makes good for a failed sync. @throws what failed */
  restore(): void {
    this.#options.rescue();
    this.#failed = false;
    this.#advance(this.#options.position());
  }

  #advance(position: number): void {
    this.#durable = Math.max(this.#durable, position);
    const settled = this.#waiters.filter(({ upTo }) => this.covers(upTo));
    this.#waiters = this.#waiters.filter(({ upTo }) => !this.covers(upTo));
    for (const { resolve } of settled) resolve();
  }

  #refuse(error: unknown): void {
    const reason = messageOf(error);
    const waiters = this.#waiters.splice(0);
    for (const { reject } of waiters) {
      reject(
        new VolantError("not_ready", `the database can't be made safe on its disk: ${reason}`, {
          hint: "look into the kernel's log for errors of that disk; what was asked for is written down, and may be in force once the disk works again",
          cause: error,
        }),
      );
    }
  }

  /** Everything was made durable by the database's own end. Resolves when nothing is under way any more. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#durable = Number.POSITIVE_INFINITY;
    this.#advance(Number.POSITIVE_INFINITY);
    await this.#running;
  }
}
