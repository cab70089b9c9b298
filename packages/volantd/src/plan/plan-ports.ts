/** From the ports that VMs have and those that are listened on to what is to change. Pure. */
import { portKey, type VmPort } from "../model/published-port.ts";

export interface PortPlan {
  readonly close: readonly VmPort[];
  /** To be opened after all of `close`: a port may change hands. */
  readonly open: readonly VmPort[];
}

function isSame(a: VmPort, b: VmPort): boolean {
  return a.vmId === b.vmId && a.guestPort === b.guestPort && a.address === b.address && a.hostPort === b.hostPort;
}

/** What is listened on and not desired is closed; what is desired and not listened on is opened. */
export function planPorts(desired: readonly VmPort[], listening: readonly VmPort[]): PortPlan {
  const byKey = new Map(listening.map((port) => [portKey(port), port]));
  const wanted = new Map(desired.map((port) => [portKey(port), port]));
  const keeps = (port: VmPort | undefined, other: VmPort) => port !== undefined && isSame(port, other);
  return {
    close: listening.filter((port) => !keeps(wanted.get(portKey(port)), port)),
    open: desired.filter((port) => !keeps(byKey.get(portKey(port)), port)),
  };
}
