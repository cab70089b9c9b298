/** What a guest is told over the link to its agent at each start. */
import type { GuestConfig, GuestNetwork } from "../guest/guest-config.ts";
import { formatAddress, type AddressPool } from "./address.ts";
import { hostnameOf } from "./hostname.ts";
import type { VmSpec } from "./vm-spec.ts";

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

function guestNetwork({ spec, address, pool, mac }: GuestSettingsInput): GuestNetwork {
  if (spec.mode === "vsock") return { mode: spec.mode };
  if (address === undefined) return { mode: spec.mode, mac };
  return {
    mode: spec.mode,
    address: formatAddress(address),
    prefixLength: pool.subnet.prefixLength,
    gateway: formatAddress(pool.gateway),
    mac,
  };
}

/** The configuration for one start of a VM. */
export function guestSettings(input: GuestSettingsInput): GuestConfig {
  const { spec } = input;
  const { workload, health_check: healthCheck } = spec.manifest;
  return {
    configVersion: `${input.vmId}-${input.generation}`,
    hostname: hostnameOf(spec.name),
    network: guestNetwork(input),
    // Without a network there is nobody to ask.
    nameservers: spec.config.nameservers ?? (spec.mode === "vsock" ? [] : input.nameservers),
    workload: {
      baseUrl: workload.base_url,
      entrypoint: workload.entrypoint ?? [],
      env: { ...workload.env, ...spec.config.env },
      workdir: workload.workdir,
      restart: "always",
    },
    healthCheck:
      healthCheck === undefined ? undefined : { endpoint: healthCheck.endpoint, timeoutMs: healthCheck.timeout_ms },
  };
}
