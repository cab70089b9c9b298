/**
 * Looks at the host, and has what set-up made put back first where it is gone. One attempt at a time: whoever looks meanwhile waits for it, and
 * an attempt that failed is not repeated before its time, however often the host is looked at.
 */
import { VolantError } from "@volant/contract";
import { needsRestore } from "../plan/plan-host.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import type { EngineLog } from "./engine.ts";
import type { HostView } from "./observe.ts";
import { messageOf } from "../message-of.ts";

export interface HostKeeperOptions {
  readonly network: Pick<NetworkManager, "restoreHost">;
  readonly log: EngineLog;
  readonly monotonicMs: () => number;
  readonly look: () => Promise<HostView>;
  /** Milliseconds until the next attempt after so many that failed before this one. */
  readonly retryDelay: (failures: number) => number;
  /** Has the host looked at again after so many milliseconds. */
  readonly wakeAfter: (delayMs: number) => void;
}

export class HostKeeper {
  readonly #options: HostKeeperOptions;
  #attempt: Promise<boolean> | undefined;
  /** Nobody has checked yet what no look shows: forwarding, the firewall's rules, the bridge's MAC. */
  #unchecked = true;
  #failures = 0;
  #retryAtMs = Number.NEGATIVE_INFINITY;
  #lastFailure: string | undefined;

  constructor(options: HostKeeperOptions) {
    this.#options = options;
  }

  /** What the host shows, after an attempt to put back what is missing. Such an attempt's failure is logged, and tried again. */
  async look(): Promise<HostView> {
    const host = await this.#options.look();
    const { network } = host.network;
    if (!network.managed || !(this.#unchecked || needsRestore(network))) return host;
    this.#attempt ??= this.#restore().finally(() => (this.#attempt = undefined));
    return (await this.#attempt) ? await this.#options.look() : host;
  }

  /** Whether anything was put back. */
  async #restore(): Promise<boolean> {
    const { network, log, monotonicMs, wakeAfter } = this.#options;
    const tooSoonMs = this.#retryAtMs - monotonicMs();
    if (tooSoonMs > 0) {
      // A timer may fire a little before its time: without another one, nobody would look again for long.
      wakeAfter(tooSoonMs);
      return false;
    }
    try {
      const restored = await network.restoreHost();
      this.#unchecked = false;
      this.#failures = 0;
      this.#lastFailure = undefined;
      if (restored.length > 0) log.warn({ restored }, "parts of the host's set-up were gone, and are there again");
      return restored.length > 0;
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  #fail(error: unknown): void {
    const { log, monotonicMs, retryDelay, wakeAfter } = this.#options;
    const message = messageOf(error);
    // A set-up that is at work does itself what is missing, and an undo takes it away: nothing to tell.
    const busy = error instanceof VolantError && error.code === "in_use";
    if (!busy && message !== this.#lastFailure) {
      if (error instanceof VolantError) log.warn({ reason: message }, "the host's set-up can't be put back");
      else log.error({ error }, "the host's set-up can't be put back, in a way that was not expected");
      this.#lastFailure = message;
    }
    const delayMs = retryDelay(busy ? 0 : this.#failures++);
    this.#retryAtMs = monotonicMs() + delayMs;
    wakeAfter(delayMs);
  }
}
