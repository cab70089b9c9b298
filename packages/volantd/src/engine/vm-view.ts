/** A VM as users see it: its row, and what the engine knows of the live one. */
import type { Vm, VmEvent, VmEventType } from "@volant/contract";
import { formatAddress, type AddressPool } from "../model/address.ts";
import type { DhcpLease } from "../model/dhcp-lease.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { VmRecord } from "../store/store.ts";
import type { Lane } from "./lane.ts";

export interface ViewContext {
  readonly runtime: Runtime;
  readonly bridge: string;
  readonly pool: AddressPool;
}

function agentView(lane: Lane | undefined): Vm["agent"] {
  const view = lane?.session?.view();
  if (view === undefined || !view.attached) return { attached: false };
  const agent = lane?.session?.agent;
  return {
    attached: true,
    ...(agent === undefined ? {} : { version: agent.version, kernel: agent.kernel }),
    ...(view.workload === undefined ? {} : { workload: view.workload }),
    ...(view.health === undefined ? {} : { health: view.health }),
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

/** The address of a VM and the length of its subnet's prefix: leased by the host, else by a DHCP server. */
function addressOf(record: VmRecord, lease: DhcpLease | undefined, pool: AddressPool): [number, number] | undefined {
  if (record.address !== undefined) return [record.address, pool.subnet.prefixLength];
  return lease?.address === undefined ? undefined : [lease.address, lease.prefixLength ?? 32];
}

export function vmView(record: VmRecord, lane: Lane | undefined, { runtime, bridge, pool }: ViewContext): Vm {
  const { spec, tap } = record;
  const lease = lane?.lease;
  const [address, prefixLength] = addressOf(record, lease, pool) ?? [];
  const process = lane?.process;
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
      ...(tap === undefined ? {} : { tap, bridge: spec.bridge ?? bridge }),
      addresses,
      ...(lease === undefined ? {} : { lease: leaseView(lease) }),
    },
    agent: agentView(lane),
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
