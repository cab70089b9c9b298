/** Serial consoles of VMs, for whoever reads and types there. */
import type { Duplex } from "node:stream";
import { VolantError } from "@volant/contract";
import type { SharedSerials } from "../guest/shared-serial.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Store } from "../store/store.ts";
import { findVm } from "./find-vm.ts";
import type { ConsoleUseCases } from "./use-cases.ts";

/** Nothing is there, or nobody listens there. */
const ABSENT: readonly unknown[] = ["ENOENT", "ECONNREFUSED", "ENOTDIR"];

export interface ConsoleServiceOptions {
  readonly store: Pick<Store, "findVm">;
  readonly runtime: Pick<Runtime, "sockets">;
  readonly serials: Pick<SharedSerials, "open">;
}

export class ConsoleService implements ConsoleUseCases {
  readonly #options: ConsoleServiceOptions;

  constructor(options: ConsoleServiceOptions) {
    this.#options = options;
  }

  async open(name: string, signal: AbortSignal): Promise<Duplex> {
    const { store, runtime, serials } = this.#options;
    const record = findVm(store, name);
    const { status } = record;
    if (status === "stopped" || status === "crashed") {
      throw new VolantError("wrong_state", `VM "${name}" is ${status}, and has no console`, {
        hint: `volar vms start ${name}`,
      });
    }
    try {
      return await serials.open(runtime.sockets(record.id).serial, signal);
    } catch (error) {
      signal.throwIfAborted();
      const isAbsent = ABSENT.includes((error as NodeJS.ErrnoException).code);
      const why = isAbsent ? "its hypervisor is not there" : (error as Error).message;
      throw new VolantError("guest_unreachable", `the console of VM "${name}" can't be opened: ${why}`, {
        cause: error,
      });
    }
  }
}
