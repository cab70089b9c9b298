/** Reaching into guests: whatever their network mode is, it goes over the link to the agent. */
import type { Duplex } from "node:stream";
import { VolantError } from "@volant/contract";
import { workloadAddress } from "../model/workload-address.ts";
import type { Store, VmRecord } from "../store/store.ts";
import type { Engine } from "./engine.ts";
import type { GuestSession } from "./guest-session.ts";
import type { ReachUseCases, Workload } from "./use-cases.ts";

export class ReachService implements ReachUseCases {
  readonly #store: Store;
  readonly #engine: Pick<Engine, "lane">;

  constructor(options: { readonly store: Store; readonly engine: Pick<Engine, "lane"> }) {
    this.#store = options.store;
    this.#engine = options.engine;
  }

  workload(name: string): Workload {
    const { record, session } = this.#reach(name);
    const found = workloadAddress(record.spec.manifest.workload.base_url);
    if (found === undefined) {
      throw new VolantError("wrong_state", `the workload of VM "${name}" has no base_url in its manifest`);
    }
    const { address, port, authority } = found;
    const query = new URLSearchParams({ port: String(port), address });
    return {
      authority,
      connect: (signal) => session.open(`/v1/forward?${query.toString().replaceAll("%3A", ":")}`, signal),
    };
  }

  async forward(name: string, port: number, signal: AbortSignal): Promise<Duplex> {
    return this.#reach(name).session.open(`/v1/forward?port=${port}`, signal);
  }

  async exec(name: string, signal: AbortSignal): Promise<Duplex> {
    return this.#reach(name).session.open("/v1/exec", signal);
  }

  async agentHealth(name: string, signal: AbortSignal): Promise<void> {
    await this.#reach(name).session.checkHealth(signal);
  }

  #reach(name: string): { readonly record: VmRecord; readonly session: GuestSession } {
    const record = this.#store.findVm(name);
    if (record === undefined) throw new VolantError("not_found", `there is no VM named "${name}"`);
    const session = this.#engine.lane(record.id)?.session;
    if (session?.agent !== undefined && session.generation === record.generation) return { record, session };
    if (record.status === "stopped" || record.status === "crashed") {
      throw new VolantError("wrong_state", `VM "${name}" is ${record.status}`, { hint: `volar vms start ${name}` });
    }
    throw new VolantError("guest_unreachable", `the agent of VM "${name}" is not connected: it is ${record.status}`);
  }
}
