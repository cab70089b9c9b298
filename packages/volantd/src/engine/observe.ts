/** One look at the host, shared by all VMs that are due; and each VM's part of it. */
import { formatAddress } from "../model/address.ts";
import { isHoldableTap } from "@volant/host";
import { MAX_MAC_VM_ID, macAddress, vmIdOfMac } from "../model/mac.ts";
import type {
  BridgeNeighbour,
  MarkedTap,
  NetworkManager,
  NetworkView,
  PolicyView,
  SeenLease,
} from "../network/network-manager.ts";
import type { DesiredVm, ObservedNetwork, ObservedVm } from "../plan/observed.ts";
import type { ObservedPolicy, VmPolicy } from "../plan/policy.ts";
import type { HypervisorProcess, Runtime } from "../runtime/runtime.ts";
import type { VmRecord } from "../store/store.ts";
import type { Lane } from "./lane.ts";

export interface HostView {
  readonly network: NetworkView;
  readonly processes: readonly HypervisorProcess[];
  /** What serves VMs' vsock devices. */
  readonly backends: readonly HypervisorProcess[];
  readonly folders: ReadonlySet<number>;
}

export async function observeHost(network: NetworkManager, runtime: Runtime): Promise<HostView> {
  const [view, processes, backends, folders] = await Promise.all([
    network.observe(),
    runtime.observe(),
    runtime.observeBackends(),
    runtime.listFolders(),
  ]);
  return { network: view, processes, backends, folders: new Set(folders) };
}

/** Values by a key that mostly one of them has: an array for each would be most of what a look at a thousand VMs leaves to be collected. */
class ByKey<K, T> {
  readonly #first = new Map<K, T>();
  readonly #more = new Map<K, T[]>();

  constructor(values: readonly T[], keyOf: (value: T) => K) {
    for (const value of values) {
      const key = keyOf(value);
      if (!this.#first.has(key)) this.#first.set(key, value);
      else {
        const more = this.#more.get(key);
        if (more === undefined) this.#more.set(key, [value]);
        else more.push(value);
      }
    }
  }

  /** In the order of the values. */
  get(key: K): readonly T[] {
    const first = this.#first.get(key);
    return first === undefined ? [] : [first, ...(this.#more.get(key) ?? [])];
  }
}

/** What was seen, by VM: a look is shared by many, and each would otherwise search through the parts of all. */
interface Parts {
  readonly processes: ByKey<number, HypervisorProcess>;
  readonly backends: ByKey<number, HypervisorProcess>;
  readonly taps: ByKey<number, MarkedTap>;
  readonly tapsByName: ByKey<string, MarkedTap>;
  readonly neighbours: ByKey<string, BridgeNeighbour>;
}

const known = new WeakMap<HostView, Parts>();

function partsOf(host: HostView): Parts {
  const before = known.get(host);
  if (before !== undefined) return before;
  const { taps, neighbours } = host.network;
  const byVm = ({ vmId }: { readonly vmId: number }): number => vmId;
  const parts: Parts = {
    processes: new ByKey(host.processes, byVm),
    backends: new ByKey(host.backends, byVm),
    taps: new ByKey(taps, byVm),
    tapsByName: new ByKey(taps, ({ name }) => name),
    neighbours: new ByKey(neighbours, ({ mac }) => mac.toLowerCase()),
  };
  known.set(host, parts);
  return parts;
}

/** The neighbours with this MAC, and those with the VM's own, which it may have had before. */
function neighboursOf(
  parts: Parts,
  installation: string,
  vmId: number,
  mac: string | undefined,
): readonly BridgeNeighbour[] {
  const ownMac = vmId <= MAX_MAC_VM_ID ? macAddress(installation, vmId) : undefined;
  const own = ownMac === undefined ? [] : parts.neighbours.get(ownMac);
  const named = mac === undefined || mac.toLowerCase() === ownMac ? [] : parts.neighbours.get(mac.toLowerCase());
  return named.length === 0 ? own : [...own, ...named];
}

/** The tap with this name, where it is this VM's and up. */
export function tapOf(host: HostView, vmId: number, name: string): MarkedTap | undefined {
  return partsOf(host)
    .taps.get(vmId)
    .find((tap) => tap.name === name && tap.up);
}

/** Ids of the VMs that something on the host belongs to. */
export function observedVmIds(host: HostView, installation: string): Set<number> {
  return new Set([
    ...host.processes.map(({ vmId }) => vmId),
    ...host.backends.map(({ vmId }) => vmId),
    ...host.network.taps.map(({ vmId }) => vmId),
    ...host.network.neighbours.flatMap(({ mac }) => vmIdOfMac(installation, mac) ?? []),
    ...(host.network.policy?.usable === true ? host.network.policy.entries.keys() : []),
    ...host.folders,
  ]);
}

/** What a VM's tap lets through. `lease` is what a DHCP server was seen to give it. */
export function policyOf(record: VmRecord, lease: SeenLease | undefined): VmPolicy | undefined {
  const { id, tap, mac, address, spec } = record;
  if (tap === undefined || !isHoldableTap(tap) || spec.mode === "vsock") return undefined;
  const common = { vmId: id, tap, mac, antiSpoof: spec.antiSpoof !== false };
  if (spec.mode === "bridged") {
    return { ...common, mode: "bridged", addresses: address === undefined ? [] : [formatAddress(address)] };
  }
  const { leaseSeconds } = lease ?? {};
  return { ...common, mode: "dhcp", addresses: lease === undefined ? [] : [lease.address], leaseSeconds };
}

function observedPolicy(view: PolicyView | undefined, vmId: number): ObservedPolicy | undefined {
  if (view === undefined || !view.usable) return view;
  return { usable: true, intact: view.intact, entry: view.entries.get(vmId) };
}

export function desiredVm(record: VmRecord, runtime: Runtime, lease?: SeenLease): DesiredVm {
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
    policy: policyOf(record, lease),
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

/** What tells a VM's part of the host from others' where it bears no mark. All are absent for an orphan. */
export interface ObservedFor {
  readonly tap: string | undefined;
  /** The bridge that its settings name; undefined for the managed one. */
  readonly bridge: string | undefined;
  readonly mac: string | undefined;
}

/** A VM's part of what was seen. */
export function observedVm(
  lane: Lane,
  { tap, bridge, mac }: ObservedFor,
  host: HostView,
  context: {
    readonly installation: string;
    readonly nowMs: number;
    readonly isPaused: (process: HypervisorProcess) => boolean;
  },
): ObservedVm {
  const { network } = host;
  const { vmId } = lane;
  const own = networkOf(network, bridge);
  const guest = lane.session?.view();
  const parts = partsOf(host);
  const processes = parts.processes.get(vmId);
  const isPaused = processes.some((process) => process.generation === guest?.generation && context.isPaused(process));
  const isExcused = isPaused || lane.session?.isOutOfReach === true;
  const excusedAtMs = isExcused ? context.nowMs : lane.excusedAtMs;
  const taken = tap !== undefined && parts.tapsByName.get(tap).some((other) => other.vmId !== vmId);
  return {
    nowMs: context.nowMs,
    network: own,
    processes,
    backends: parts.backends.get(vmId),
    taps: parts.taps.get(vmId).map(({ bridge: joined, ...other }) => ({
      ...other,
      attached: own.managed && joined === own.bridgeName,
    })),
    policy: observedPolicy(network.policy, vmId),
    foreignTap: tap !== undefined && (taken || network.foreignNames.has(tap)),
    tapHolder: tap === undefined ? undefined : network.foreignNames.get(tap),
    neighbours: neighboursOf(parts, context.installation, vmId, mac),
    folder: host.folders.has(vmId),
    guest: guest === undefined ? undefined : { ...guest, lease: lane.lease, isPaused, excusedAtMs },
    shutdowns: lane.shutdowns,
  };
}
