/**
 * VMs as they were shown last. Of a thousand in a list hardly any has changed since the list before, so each is made again only where something that it is made
 * from is another; whoever gets the same object twice may rely on it that nothing has changed.
 */
import type { Vm } from "@volant/contract";
import type { VmRecord } from "../store/store.ts";
import type { Lane } from "./lane.ts";
import { vmView, type ViewContext } from "./vm-view.ts";

interface Shown {
  readonly vm: Vm;
  readonly madeFrom: readonly unknown[];
}

export class ShownVms {
  readonly #context: ViewContext;
  /** A record that is written anew is another object, and takes what was made from it along. */
  readonly #shown = new WeakMap<VmRecord, Shown>();

  constructor(context: ViewContext) {
    this.#context = context;
  }

  show(record: VmRecord, lane: Lane | undefined): Vm {
    const madeFrom = this.#parts(record, lane);
    const before = this.#shown.get(record);
    if (before !== undefined && isSame(before.madeFrom, madeFrom)) return before.vm;
    const vm = vmView(record, lane, this.#context);
    this.#shown.set(record, { vm, madeFrom });
    return vm;
  }

  /** All that {@link vmView} looks at, besides the record and what never changes. */
  #parts(record: VmRecord, lane: Lane | undefined): readonly unknown[] {
    const { network, portState } = this.#context;
    const session = lane?.session;
    const view = session?.view();
    const transport = session?.transport;
    const ports = record.ports.flatMap((port) => {
      const { listening, reason } = portState(port);
      return [listening, reason];
    });
    return [
      network.dropped(record.id),
      lane?.process?.pid,
      lane?.lease,
      view?.attached,
      view?.silentSinceMs === undefined,
      view?.workload,
      view?.health,
      session?.agent,
      transport?.name,
      transport !== undefined && "reason" in transport ? transport.reason : undefined,
      ...ports,
    ];
  }
}

function isSame(before: readonly unknown[], now: readonly unknown[]): boolean {
  return before.length === now.length && before.every((part, index) => part === now[index]);
}
