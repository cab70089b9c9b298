/** What guests have printed on their serial consoles, as far as it is kept. */
import { DEFAULT_CONSOLE_LINES } from "@volant/contract";
import type { Runtime } from "../runtime/runtime.ts";
import type { Store } from "../store/store.ts";
import { findVm } from "./find-vm.ts";
import type { ConsoleLogUseCases } from "./use-cases.ts";

export class ConsoleLogService implements ConsoleLogUseCases {
  readonly #store: Pick<Store, "findVm">;
  readonly #runtime: Pick<Runtime, "consoleTail">;

  constructor(options: { readonly store: Pick<Store, "findVm">; readonly runtime: Pick<Runtime, "consoleTail"> }) {
    this.#store = options.store;
    this.#runtime = options.runtime;
  }

  async tail(name: string, lines: number = DEFAULT_CONSOLE_LINES): Promise<readonly string[]> {
    const record = findVm(this.#store, name);
    return this.#runtime.consoleTail(record.id, lines);
  }
}
