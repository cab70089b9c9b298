/** Whether volantd can do what it is for: a check of a load balancer or of systemd asks. That it answers at all is another question. */
import { VolantError } from "@volant/contract";
import type { Store } from "../store/store.ts";
import type { Engine } from "./engine.ts";
import type { ReadinessUseCases } from "./use-cases.ts";

/** A disk that takes longer than this is not at work. */
const LIMIT_MS = 5000;

export class Readiness implements ReadinessUseCases {
  readonly #store: Pick<Store, "settled" | "countVms">;
  readonly #engine: Pick<Engine, "blindness">;

  constructor(store: Pick<Store, "settled" | "countVms">, engine: Pick<Engine, "blindness">) {
    this.#store = store;
    this.#engine = engine;
  }

  async check(): Promise<void> {
    const { blindness } = this.#engine;
    if (blindness !== undefined) throw new VolantError("not_ready", `the host can't be observed: ${blindness}`);
    // Both say `not_ready` with the reason where the database fails.
    this.#store.countVms();
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () =>
        late.reject(
          new VolantError("not_ready", `the database was not made safe on its disk within ${LIMIT_MS / 1000} s`),
        ),
      LIMIT_MS,
    );
    try {
      await Promise.race([this.#store.settled(), late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }
}
