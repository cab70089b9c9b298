/** What happens to VMs, collected while a test goes on, and waited for. */
import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import type { Vm, VmEvent } from "@volant/contract";
import type { VolantClient } from "@volant/sdk";

/** A guest's boot under software emulation on a busy machine takes a fraction of it. */
const PATIENCE_MS = 120_000;

export class VmNews {
  readonly events: VmEvent[] = [];
  readonly #client: VolantClient;
  readonly #news = new EventEmitter().setMaxListeners(0);
  readonly #ended = new AbortController();

  constructor(client: VolantClient) {
    this.#client = client;
    void this.#collect();
  }

  async #collect(): Promise<void> {
    try {
      for await (const event of this.#client.events({ signal: this.#ended.signal })) {
        if (event.type === "VM_LOG") continue;
        this.events.push(event);
        this.#news.emit("event");
      }
    } catch (error) {
      if (!this.#ended.signal.aborted) throw error;
    }
  }

  /** Waits until the VM is as `done` wants it: a look now, then one after each event. */
  async until(name: string, done: (vm: Vm) => boolean, what: string): Promise<Vm> {
    const deadline = AbortSignal.timeout(PATIENCE_MS);
    for (;;) {
      const next = once(this.#news, "event", { signal: deadline });
      next.catch(() => {});
      const vm = await this.#client.vms.get(name);
      if (done(vm)) return vm;
      await next.catch(() => assert.fail(`${what}: ${JSON.stringify(vm)}`));
    }
  }

  end(): void {
    this.#ended.abort();
  }
}
