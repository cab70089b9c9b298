/**
 * Knows whether what set-up recorded is whole: firewall rules, forwarding, the bridge's MAC, all that a look at links does not show. Looks when
 * the kernel tells that somebody changed nftables or forwarding; and by the clock, where nobody would tell. Changes nothing itself.
 */
import { VolantError } from "@volant/contract";
import type { SetupCondition } from "@volant/host";
import {
  becameQuarrel,
  doubted,
  looked,
  LONGEST_DELAY_MS,
  type LookHistory,
  nextLookAtMs,
  NO_LOOKS,
} from "../plan/setup-looks.ts";
import { messageOf } from "../message-of.ts";

export interface SetupWatchOptions {
  /** @throws VolantError when the record can't be read */
  readonly inspect: () => Promise<SetupCondition>;
  readonly monotonicMs: () => number;
  /** A look found something missing: has it put back. */
  readonly onDamage: () => void;
  /** What an operator should see. */
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
}

export class SetupWatch {
  readonly #options: SetupWatchOptions;
  #history: LookHistory = NO_LOOKS;
  #damaged = false;
  #watching = false;
  #looking = false;
  #timer: NodeJS.Timeout | undefined;
  #lastTrouble: string | undefined;

  constructor(options: SetupWatchOptions) {
    this.#options = options;
  }

  /** Something was missing at the last look, and has not been put back since. */
  get damaged(): boolean {
    return this.#damaged;
  }

  /** Looks from now on, once at once, until the signal aborts. */
  begin(signal: AbortSignal): void {
    this.#watching = !signal.aborted;
    signal.addEventListener("abort", () => this.#end(), { once: true });
    this.doubt();
  }

  /** Somebody changed something: it is looked at soon. */
  doubt(): void {
    this.#history = doubted(this.#history, this.#options.monotonicMs());
    this.#schedule();
  }

  /** All was put back. While that was at work nothing was judged: what somebody removed meanwhile is seen by one more look. */
  restored(): void {
    this.#damaged = false;
    this.doubt();
  }

  #end(): void {
    this.#watching = false;
    clearTimeout(this.#timer);
  }

  #schedule(): void {
    if (!this.#watching || this.#looking) return;
    const atMs = nextLookAtMs(this.#history);
    clearTimeout(this.#timer);
    if (atMs === undefined) return;
    const delayMs = Math.max(0, Math.ceil(atMs - this.#options.monotonicMs()));
    this.#timer = setTimeout(() => void this.#look(), delayMs).unref();
  }

  async #look(): Promise<void> {
    this.#looking = true;
    const beganAtMs = this.#options.monotonicMs();
    this.#history = { ...this.#history, doubtedAtMs: undefined };
    const condition = await this.#inspect();
    const found = condition.state === "busy" ? "busy" : condition.missing.length > 0 ? "damaged" : "whole";
    const before = this.#history;
    const endedAtMs = this.#options.monotonicMs();
    this.#history = looked(before, { beganAtMs, endedAtMs, found, untold: condition.untold });
    this.#looking = false;
    if (!this.#watching) return;
    if (becameQuarrel(before, this.#history)) {
      const fields = { missing: condition.missing, times: this.#history.quarrel.count };
      const slowly = `it is put back more and more slowly, up to ${LONGEST_DELAY_MS / 1000} s later`;
      this.#options.warn(fields, `somebody removes parts of the host's set-up again and again: ${slowly}`);
    }
    // An undo takes away what was missed.
    if (found !== "busy") this.#damaged = found === "damaged";
    this.#schedule();
    if (found === "damaged") this.#options.onDamage();
  }

  /** What can't be looked at is said once, and looked at again. */
  async #inspect(): Promise<SetupCondition> {
    try {
      const condition = await this.#options.inspect();
      this.#lastTrouble = undefined;
      return condition;
    } catch (error) {
      const reason = messageOf(error);
      if (reason !== this.#lastTrouble) {
        const fields = error instanceof VolantError ? { reason } : { error };
        this.#options.warn(fields, "nobody can tell whether the host's set-up is whole");
      }
      this.#lastTrouble = reason;
      return { state: "busy", missing: [], untold: false };
    }
  }
}
