/** One look at the host, shared by all VMs that are due; and each VM's part of it. */
import { vmIdOfMac } from "../model/mac.ts";
import type { NetworkManager, NetworkView } from "../network/network-manager.ts";
import type { DesiredVm, ObservedVm } from "../plan/observed.ts";
import type { HypervisorProcess, Runtime } from "../runtime/runtime.ts";
import type { VmRecord } from "../store/store.ts";
import type { Lane } from "./lane.ts";

export interface HostView {
  readonly network: NetworkView;
  readonly processes: readonly HypervisorProcess[];
  readonly folders: ReadonlySet<number>;
}

export async function observeHost(network: NetworkManager, runtime: Runtime): Promise<HostView> {
  const [view, processes, folders] = await Promise.all([network.observe(), runtime.observe(), runtime.listFolders()]);
  return { network: view, processes, folders: new Set(folders) };
}

/** Ids of the VMs that something on the host belongs to. */
export function observedVmIds(host: HostView, installation: string): Set<number> {
  return new Set([
    ...host.processes.map(({ vmId }) => vmId),
    ...host.network.taps.map(({ vmId }) => vmId),
    ...host.network.neighbours.flatMap(({ mac }) => vmIdOfMac(installation, mac) ?? []),
    ...host.folders,
  ]);
}

export function desiredVm(record: VmRecord, runtime: Runtime): DesiredVm {
  return {
    id: record.id,
    name: record.spec.name,
    desired: record.desired,
    generation: record.generation,
    startedGeneration: record.startedGeneration,
    runningGeneration: record.runningGeneration,
    endedGeneration: record.endedGeneration,
    tap: record.tap,
    mac: record.mac,
    address: record.address,
    uid: runtime.identity(record.id).uid,
    healthCheck: record.spec.manifest.health_check !== undefined,
  };
}

/** A VM's part of what was seen. */
export function observedVm(
  lane: Lane,
  tap: string | undefined,
  host: HostView,
  context: { readonly installation: string; readonly nowMs: number },
): ObservedVm {
  const { network } = host;
  const { vmId } = lane;
  const taken = network.taps.some((other) => other.name === tap && other.vmId !== vmId);
  return {
    nowMs: context.nowMs,
    network: network.network,
    processes: host.processes.filter((process) => process.vmId === vmId),
    taps: network.taps.filter((other) => other.vmId === vmId),
    foreignTap: tap !== undefined && (taken || network.foreignNames.has(tap)),
    neighbours: network.neighbours.filter(({ mac }) => vmIdOfMac(context.installation, mac) === vmId),
    folder: host.folders.has(vmId),
    guest: lane.session?.view(),
    shutdowns: lane.shutdowns,
  };
}
