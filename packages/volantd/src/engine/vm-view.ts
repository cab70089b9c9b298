/** A VM as users see it: its row, and what the engine knows of the live one. */
import type { Vm, VmEvent, VmEventType } from "@volant/contract";
import { formatAddress, type AddressPool } from "../model/address.ts";
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

export function vmView(record: VmRecord, lane: Lane | undefined, { runtime, bridge, pool }: ViewContext): Vm {
  const { spec, address, tap } = record;
  const process = lane?.process;
  const addresses = address === undefined ? [] : [`${formatAddress(address)}/${pool.subnet.prefixLength}`];
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
    network: { mode: spec.mode, ...(tap === undefined ? {} : { tap, bridge }), addresses },
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
