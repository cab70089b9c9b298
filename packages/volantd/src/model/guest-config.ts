/** What a guest is told over the link to its agent: docs/agent-protocol.md, `PUT /v1/config`. Field names are the wire's. */
import type { HealthCheck, NetworkMode, Workload } from "@volant/contract";
import { formatAddress, type AddressPool } from "./address.ts";
import { hostnameOf } from "./hostname.ts";
import type { VmSpec } from "./vm-spec.ts";

export interface GuestNetwork {
  readonly mode: NetworkMode;
  readonly address?: string;
  readonly prefix_length?: number;
  readonly gateway?: string;
  readonly mac?: string;
}

export interface GuestSettings {
  /** The same version again changes nothing in the guest. */
  readonly config_version: string;
  readonly hostname: string;
  readonly network: GuestNetwork;
  readonly nameservers: readonly string[];
  readonly workload: Workload & { readonly restart: "always" };
  readonly health_check?: HealthCheck;
}

export interface GuestSettingsInput {
  readonly spec: VmSpec;
  readonly vmId: number;
  readonly generation: number;
  readonly mac: string;
  /** Absent where the host leases none. */
  readonly address?: number | undefined;
  readonly pool: AddressPool;
  /** Where the VM's own settings name none. */
  readonly nameservers: readonly string[];
}

/** The configuration for one start of a VM. */
export function guestSettings(input: GuestSettingsInput): GuestSettings {
  const { spec, address, pool } = input;
  const { manifest } = spec;
  const network: GuestNetwork =
    address === undefined
      ? { mode: spec.mode, ...(spec.mode === "vsock" ? {} : { mac: input.mac }) }
      : {
          mode: spec.mode,
          address: formatAddress(address),
          prefix_length: pool.subnet.prefixLength,
          gateway: formatAddress(pool.gateway),
          mac: input.mac,
        };
  return {
    config_version: `${input.vmId}-${input.generation}`,
    hostname: hostnameOf(spec.name),
    network,
    nameservers: spec.config.nameservers ?? input.nameservers,
    workload: {
      ...manifest.workload,
      env: { ...manifest.workload.env, ...spec.config.env },
      restart: "always",
    },
    ...(manifest.health_check === undefined ? {} : { health_check: manifest.health_check }),
  };
}
