/** What a guest is told (PUT /v1/config): see docs/agent-protocol.md. Pure. */
import type { NetworkMode } from "@volant/contract";

export interface GuestNetwork {
  readonly mode: NetworkMode;
  /** Of `bridged`; without it the guest keeps what `ip=` said. */
  readonly address?: string | undefined;
  readonly prefixLength?: number | undefined;
  readonly gateway?: string | undefined;
  readonly mac?: string | undefined;
  readonly mtu?: number | undefined;
}

export interface GuestWorkload {
  /** `http://host:port` inside the guest: where the health check goes. */
  readonly baseUrl?: string | undefined;
  readonly entrypoint: readonly string[];
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly workdir?: string | undefined;
  /** Default `always`. */
  readonly restart?: "always" | "on-failure" | "no" | undefined;
}

export interface GuestConfig {
  /** The same version again changes nothing in the guest and restarts nothing. 1 to 128 bytes. */
  readonly configVersion: string;
  readonly hostname?: string | undefined;
  readonly network?: GuestNetwork | undefined;
  readonly nameservers?: readonly string[] | undefined;
  readonly search?: readonly string[] | undefined;
  /** Environment of the VM; the workload's own wins over it. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly workload?: GuestWorkload | undefined;
  readonly healthCheck?: { readonly endpoint: string; readonly timeoutMs?: number | undefined } | undefined;
  readonly shutdownTimeoutMs?: number | undefined;
}

/** The request's body. */
export function encodeGuestConfig(config: GuestConfig): string {
  const { network, workload, healthCheck } = config;
  return JSON.stringify({
    config_version: config.configVersion,
    hostname: config.hostname,
    network: network && {
      mode: network.mode,
      address: network.address,
      prefix_length: network.prefixLength,
      gateway: network.gateway,
      mac: network.mac,
      mtu: network.mtu,
    },
    nameservers: config.nameservers,
    search: config.search,
    env: config.env,
    workload: workload && {
      type: "http",
      base_url: workload.baseUrl,
      entrypoint: workload.entrypoint,
      env: workload.env,
      workdir: workload.workdir,
      restart: workload.restart,
    },
    health_check: healthCheck && { endpoint: healthCheck.endpoint, timeout_ms: healthCheck.timeoutMs },
    shutdown_timeout_ms: config.shutdownTimeoutMs,
  });
}
