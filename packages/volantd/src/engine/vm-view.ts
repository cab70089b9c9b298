/** A VM as users see it: its row, and what the engine knows of the live one. */
import type { Vm, VmEvent, VmEventType } from "@volant/contract";
import { formatAddress, isUsable, type AddressPool } from "../model/address.ts";
import { deploymentOf } from "../model/deployment.ts";
import type { DhcpLease } from "../model/dhcp-lease.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import type { PublishedPort } from "../model/published-port.ts";
import type { Runtime } from "../runtime/runtime.ts";
import { restartPolicy, wantsRestart } from "../model/restart-policy.ts";
import type { VmRecord } from "../store/store.ts";
import type { Lane } from "./lane.ts";
import type { PortState } from "./port-keeper.ts";

export interface ViewContext {
  readonly runtime: Runtime;
  readonly network: Pick<NetworkManager, "dropped">;
  /** Undefined where Volant manages no network: which bridge a tap is on is then not for it to say. */
  readonly bridge: string | undefined;
  readonly pool: AddressPool;
  readonly portState: (port: PublishedPort) => PortState;
}

function agentView(lane: Lane | undefined): Vm["agent"] {
  const view = lane?.session?.view();
  if (view === undefined) return { attached: false };
  const responding = view.silentSinceMs === undefined;
  if (!view.attached) return { attached: false, ...(responding ? {} : { responding }) };
  const agent = lane?.session?.agent;
  const transport = lane?.session?.transport;
  return {
    attached: true,
    responding,
    ...(agent === undefined ? {} : { version: agent.version, kernel: agent.kernel }),
    ...(view.workload === undefined ? {} : { workload: view.workload }),
    ...(view.health === undefined ? {} : { health: view.health }),
    ...(transport === undefined ? {} : { transport: transport.name }),
    ...(transport === undefined || !("reason" in transport) ? {} : { transport_reason: transport.reason }),
  };
}

function leaseView(lease: DhcpLease): NonNullable<Vm["network"]["lease"]> {
  const { phase, gateway, server, nameservers, domain, obtainedAt, renewsAt, rebindsAt, expiresAt, reason } = lease;
  return {
    state: phase,
    ...(gateway === undefined ? {} : { gateway: formatAddress(gateway) }),
    ...(server === undefined ? {} : { server: formatAddress(server) }),
    nameservers: nameservers.map(formatAddress),
    ...(domain === undefined ? {} : { domain }),
    ...(obtainedAt === undefined ? {} : { obtained_at: obtainedAt.toISOString() }),
    ...(renewsAt === undefined ? {} : { renews_at: renewsAt.toISOString() }),
    ...(rebindsAt === undefined ? {} : { rebinds_at: rebindsAt.toISOString() }),
    ...(expiresAt === undefined ? {} : { expires_at: expiresAt.toISOString() }),
    ...(reason === undefined ? {} : { reason }),
  };
}

function portView(
  port: PublishedPort,
  { listening, reason }: PortState,
): NonNullable<Vm["network"]["published"]>[number] {
  const { name, guestPort, address, hostPort } = port;
  return {
    ...(name === undefined ? {} : { name }),
    protocol: "tcp",
    port: guestPort,
    host_address: address,
    host_port: hostPort,
    listening,
    ...(reason === undefined ? {} : { reason }),
  };
}

/** The address of a VM and the length of its subnet's prefix: leased by the host, else by a DHCP server. */
function addressOf(record: VmRecord, lease: DhcpLease | undefined, pool: AddressPool): [number, number] | undefined {
  if (record.address !== undefined) {
    // A running VM keeps what it has when the managed subnet is changed; the old one's size is not known any more.
    return [record.address, isUsable(pool.subnet, record.address) ? pool.subnet.prefixLength : 32];
  }
  return lease?.address === undefined ? undefined : [lease.address, lease.prefixLength ?? 32];
}

/** When a VM that has ended is started again; undefined when it is not. */
export function nextRestartAt(record: VmRecord): string | undefined {
  const { desired, endedStatus, endedCause, endedGeneration, generation, restartAtMs } = record;
  if (desired !== "running" || endedGeneration !== generation || restartAtMs === undefined) return undefined;
  if (!wantsRestart(restartPolicy(record), { status: endedStatus ?? "crashed", cause: endedCause })) return undefined;
  return new Date(restartAtMs).toISOString();
}

export function vmView(record: VmRecord, lane: Lane | undefined, context: ViewContext): Vm {
  const { runtime, network, bridge, pool, portState } = context;
  const { spec, tap } = record;
  const dropped = tap === undefined ? undefined : network.dropped(record.id);
  const lease = lane?.lease;
  const [address, prefixLength] = addressOf(record, lease, pool) ?? [];
  const process = lane?.process;
  const nextRestart = nextRestartAt(record);
  const deployment = deploymentOf(record);
  const addresses = address === undefined ? [] : [`${formatAddress(address)}/${prefixLength}`];
  return {
    id: record.id,
    name: spec.name,
    status: record.status,
    ...(record.reason === undefined ? {} : { reason: record.reason }),
    runtime: spec.runtime,
    ...(process === undefined ? {} : { pid: process.pid }),
    ip_address: address === undefined ? "" : formatAddress(address),
    mac_address: record.mac,
    cpu_cores: spec.cpuCores,
    memory_mb: spec.memoryMib,
    kernel_cmdline: spec.kernelCmdline,
    serial_socket: runtime.sockets(record.id).serial,
    created_at: record.createdAt,
    updated_at: record.updatedAt,
    vsock_cid: record.cid,
    plugin: spec.plugin,
    network: {
      mode: spec.mode,
      ...(tap === undefined ? {} : { tap }),
      ...(tap === undefined || bridge === undefined ? {} : { bridge: spec.bridge ?? bridge }),
      addresses,
      ...(lease === undefined ? {} : { lease: leaseView(lease) }),
      ...(dropped === undefined ? {} : { dropped_frames: dropped }),
      ...(record.ports.length === 0 ? {} : { published: record.ports.map((port) => portView(port, portState(port))) }),
    },
    // Nothing holds a guest on a tap that is not Volant's to make.
    ...(tap === undefined || bridge === undefined ? {} : { policy: { anti_spoof: spec.antiSpoof !== false } }),
    restart: restartPolicy(record),
    restarts: record.restarts,
    ...(nextRestart === undefined ? {} : { next_restart_at: nextRestart }),
    ...(deployment === undefined ? {} : { deployment }),
    agent: agentView(lane),
    ...(record.next === undefined ? {} : { pending_config: true }),
  };
}

/** An event about a VM as it is now. */
export function vmEvent(
  type: VmEventType,
  record: VmRecord,
  extra: { readonly now: Date; readonly pid?: number | undefined; readonly message?: string | undefined },
): VmEvent {
  return {
    type,
    name: record.spec.name,
    status: record.status,
    ...(record.reason === undefined ? {} : { reason: record.reason }),
    ...(record.address === undefined ? {} : { ip_address: formatAddress(record.address) }),
    mac_address: record.mac,
    ...(extra.pid === undefined ? {} : { pid: extra.pid }),
    timestamp: extra.now.toISOString(),
    ...(extra.message === undefined ? {} : { message: extra.message }),
  };
}
