/** One look at the host, shared by all VMs that are due; and each VM's part of it. */
import { vmIdOfMac } from "../model/mac.ts";
import type { NetworkManager, NetworkView } from "../network/network-manager.ts";
import type { DesiredVm, ObservedNetwork, ObservedVm } from "../plan/observed.ts";
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
    bridge: record.spec.bridge,
    mac: record.mac,
    address: record.address,
    uid: runtime.identity(record.id).uid,
    needsLease: record.spec.mode === "dhcp",
    healthCheck: record.spec.manifest.health_check !== undefined,
  };
}

/** The network as a VM on this bridge sees it; undefined is the managed one. */
function networkOf(view: NetworkView, bridge: string | undefined): ObservedNetwork {
  const { network, otherBridges, foreignNames } = view;
  if (!network.managed || bridge === undefined || bridge === network.bridgeName) return network;
  const state = otherBridges.get(bridge) ?? (foreignNames.has(bridge) ? "not_a_bridge" : "missing");
  return { managed: true, bridge: state, bridgeName: bridge, foreign: true, addressed: true };
}

/**
 * A VM's part of what was seen.
 *
 * @param bridge the bridge that its settings name; undefined for the managed one
 */
export function observedVm(
  lane: Lane,
  { tap, bridge }: { readonly tap: string | undefined; readonly bridge: string | undefined },
  host: HostView,
  context: { readonly installation: string; readonly nowMs: number },
): ObservedVm {
  const { network } = host;
  const { vmId } = lane;
  const own = networkOf(network, bridge);
  const guest = lane.session?.view();
  const taken = network.taps.some((other) => other.name === tap && other.vmId !== vmId);
  return {
    nowMs: context.nowMs,
    network: own,
    processes: host.processes.filter((process) => process.vmId === vmId),
    taps: network.taps
      .filter((other) => other.vmId === vmId)
      .map(({ bridge: joined, ...other }) => ({ ...other, attached: own.managed && joined === own.bridgeName })),
    foreignTap: tap !== undefined && (taken || network.foreignNames.has(tap)),
    neighbours: network.neighbours.filter(({ mac }) => vmIdOfMac(context.installation, mac) === vmId),
    folder: host.folders.has(vmId),
    guest: guest === undefined ? undefined : { ...guest, lease: lane.lease },
    shutdowns: lane.shutdowns,
  };
}
