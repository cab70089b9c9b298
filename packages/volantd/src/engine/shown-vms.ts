/**
 * VMs as they were shown last. Of a thousand in a list hardly any has changed since the list before, so each is made again only where something that it is made
 * from is another; whoever gets the same object twice may rely on it that nothing has changed.
 */
import type { Vm } from "@volant/contract";
import type { TransportState } from "../guest/data-link.ts";
import type { AgentInfo } from "../guest/control-lines.ts";
import type { DhcpLease } from "../model/dhcp-lease.ts";
import type { ObservedGuest } from "../plan/observed.ts";
import type { VmRecord } from "../store/store.ts";
import type { Lane } from "./lane.ts";
import type { PortState } from "./port-keeper.ts";
import { vmView, type ViewContext } from "./vm-view.ts";

/** All that {@link vmView} looks at, besides the record and what never changes. */
interface Parts {
  readonly dropped: number | undefined;
  readonly pid: number | undefined;
  readonly lease: DhcpLease | undefined;
  readonly guest: ObservedGuest | undefined;
  readonly agent: AgentInfo | undefined;
  readonly transport: TransportState | undefined;
  /** Of the record's ports, in their order; absent where it has none, as most. */
  readonly ports: readonly PortState[] | undefined;
}

interface Shown {
  readonly vm: Vm;
  readonly madeFrom: Parts;
}

export class ShownVms {
  readonly #context: ViewContext;
  /** A record that is written anew is another object, and takes what was made from it along. */
  readonly #shown = new WeakMap<VmRecord, Shown>();

  constructor(context: ViewContext) {
    this.#context = context;
  }

  show(record: VmRecord, lane: Lane | undefined): Vm {
    const before = this.#shown.get(record);
    if (before !== undefined && this.#isSame(before.madeFrom, record, lane)) return before.vm;
    const vm = vmView(record, lane, this.#context);
    this.#shown.set(record, { vm, madeFrom: this.#parts(record, lane) });
    return vm;
  }

  #parts({ id, ports }: VmRecord, lane: Lane | undefined): Parts {
    const { network, portState } = this.#context;
    const session = lane?.session;
    return {
      dropped: network.dropped(id),
      pid: lane?.process?.pid,
      lease: lane?.lease,
      guest: session?.view(),
      agent: session?.agent,
      transport: session?.transport,
      ports: ports.length === 0 ? undefined : ports.map((port) => portState(port)),
    };
  }

  /** Whether {@link #parts} would say the same. A list asks it of each VM, so nothing is made here that has to be collected. */
  #isSame(before: Parts, { id, ports }: VmRecord, lane: Lane | undefined): boolean {
    const { network, portState } = this.#context;
    const session = lane?.session;
    return (
      before.dropped === network.dropped(id) &&
      before.pid === lane?.process?.pid &&
      before.lease === lane?.lease &&
      isSameGuest(before.guest, session?.view()) &&
      before.agent === session?.agent &&
      isSameTransport(before.transport, session?.transport) &&
      ports.every((port, index) => isSamePort(before.ports?.[index], portState(port)))
    );
  }
}

/** As far as users see it. */
function isSameGuest(before: ObservedGuest | undefined, now: ObservedGuest | undefined): boolean {
  if (before === now) return true;
  if (before === undefined || now === undefined) return false;
  return (
    before.attached === now.attached &&
    before.workload === now.workload &&
    before.health === now.health &&
    (before.silentSinceMs === undefined) === (now.silentSinceMs === undefined)
  );
}

function isSameTransport(before: TransportState | undefined, now: TransportState | undefined): boolean {
  return before?.name === now?.name && reasonOf(before) === reasonOf(now);
}

function reasonOf(transport: TransportState | undefined): string | undefined {
  return transport !== undefined && "reason" in transport ? transport.reason : undefined;
}

function isSamePort(before: PortState | undefined, now: PortState): boolean {
  return before?.listening === now.listening && before.reason === now.reason;
}
