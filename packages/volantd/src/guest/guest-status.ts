/** What a guest says of itself (docs/agent-protocol.md, "Status"), checked. Pure. */
import { asBoolean, asCount, asMessage, asObject, asText, asTime, type JsonObject } from "./untrusted.ts";

const LEASE_PHASES = ["waiting_for_lease", "bound", "renewing", "rebinding"] as const;
export type LeasePhase = (typeof LEASE_PHASES)[number];

/** What the guest's DHCP client has come to. Addresses are text as it was sent. */
export interface GuestLeaseStatus {
  readonly phase: LeasePhase;
  readonly server?: string;
  readonly nameservers: readonly string[];
  readonly domain?: string;
  readonly obtainedAt?: Date;
  readonly renewsAt?: Date;
  readonly rebindsAt?: Date;
  readonly expiresAt?: Date;
  readonly reason?: string;
}

export interface GuestNetworkStatus {
  readonly applied: boolean;
  readonly mode?: string;
  readonly interface?: string;
  readonly address?: string;
  readonly prefixLength?: number;
  readonly gateway?: string;
  /** Why it could not be applied. */
  readonly reason?: string;
  /** In mode `dhcp`. */
  readonly lease?: GuestLeaseStatus;
}

export type WorkloadState =
  | { readonly state: "waiting_for_config" | "starting" | "stopping" }
  | { readonly state: "running"; readonly pid: number }
  | { readonly state: "exited"; readonly code?: number; readonly signal?: number; readonly restartInMs?: number }
  | { readonly state: "failed"; readonly reason: string; readonly restartInMs?: number };

export type GuestHealth =
  /** `reason`: why the last probe failed, while the workload has not been healthy yet. */
  | { readonly state: "unknown"; readonly reason?: string }
  | { readonly state: "healthy" }
  | { readonly state: "unhealthy"; readonly reason: string };

export interface GuestStatus {
  /** Absent until the guest was configured. */
  readonly configVersion?: string;
  readonly hostname: string;
  readonly generation: number;
  readonly network: GuestNetworkStatus;
  readonly workload: WorkloadState & { readonly restarts: number };
  readonly health: GuestHealth;
  readonly bootId: string;
  readonly uptimeMs: number;
  readonly memory: { readonly totalKib: number; readonly availableKib: number; readonly agentKib: number };
}

const REASON_LENGTH = 1024;
/** resolv.conf(5), MAXNS. */
const MOST_NAMESERVERS = 3;

/** `fields` without those that are undefined: an absent field and an undefined one are different types. */
function compact<T extends object>(fields: { readonly [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}

function readLease(value: JsonObject | undefined): GuestLeaseStatus | undefined {
  const phase = LEASE_PHASES.find((known) => known === value?.["state"]);
  if (value === undefined || phase === undefined) return undefined;
  const nameservers: readonly unknown[] = Array.isArray(value["nameservers"]) ? value["nameservers"] : [];
  const domain = asText(value["domain"], 253);
  return compact<GuestLeaseStatus>({
    phase,
    server: asText(value["server"], 15),
    nameservers: nameservers.slice(0, MOST_NAMESERVERS).flatMap((server) => asText(server, 15) ?? []),
    domain: domain !== undefined && /^[A-Za-z0-9._-]+$/.test(domain) ? domain : undefined,
    obtainedAt: asTime(value["obtained_at"]),
    renewsAt: asTime(value["renews_at"]),
    rebindsAt: asTime(value["rebinds_at"]),
    expiresAt: asTime(value["expires_at"]),
    reason: asMessage(value["reason"], REASON_LENGTH),
  });
}

function readNetwork(value: JsonObject | undefined): GuestNetworkStatus | undefined {
  const applied = asBoolean(value?.["applied"]);
  if (value === undefined || applied === undefined) return undefined;
  return compact<GuestNetworkStatus>({
    applied,
    mode: asText(value["mode"], 16),
    interface: asText(value["interface"], 15),
    address: asText(value["address"], 45),
    prefixLength: asCount(value["prefix_length"], 128),
    gateway: asText(value["gateway"], 45),
    reason: asMessage(value["reason"], REASON_LENGTH),
    lease: readLease(asObject(value["lease"])),
  });
}

function readWorkload(value: JsonObject | undefined): WorkloadState | undefined {
  const restartInMs = asCount(value?.["restart_in_ms"]);
  switch (value?.["state"]) {
    case "waiting_for_config":
    case "starting":
    case "stopping":
      return { state: value["state"] };
    case "running": {
      const pid = asCount(value["pid"], 0x7fffffff);
      return pid === undefined ? undefined : { state: "running", pid };
    }
    case "exited":
      return compact<Extract<WorkloadState, { state: "exited" }>>({
        state: "exited",
        code: asCount(value["code"], 255),
        signal: asCount(value["signal"], 127),
        restartInMs,
      });
    case "failed":
      return compact<Extract<WorkloadState, { state: "failed" }>>({
        state: "failed",
        reason: asMessage(value["reason"], REASON_LENGTH) ?? "no reason was given",
        restartInMs,
      });
    default:
      return undefined;
  }
}

function readHealth(value: JsonObject | undefined): GuestHealth | undefined {
  const reason = asMessage(value?.["reason"], REASON_LENGTH);
  switch (value?.["state"]) {
    case "healthy":
      return { state: "healthy" };
    case "unhealthy":
      return { state: "unhealthy", reason: reason ?? "no reason was given" };
    case "unknown":
      return reason === undefined ? { state: "unknown" } : { state: "unknown", reason };
    default:
      return undefined;
  }
}

/** The status that `sent` is; undefined when the guest sent something else. */
export function readGuestStatus(sent: unknown): GuestStatus | undefined {
  const value = asObject(sent);
  const memory = asObject(value?.["memory"]);
  const hostname = asText(value?.["hostname"], 64);
  const generation = asCount(value?.["generation"]);
  const network = readNetwork(asObject(value?.["network"]));
  const workload = readWorkload(asObject(value?.["workload"]));
  const restarts = asCount(asObject(value?.["workload"])?.["restarts"]);
  const health = readHealth(asObject(value?.["health"]));
  const bootId = asText(value?.["boot_id"], 64);
  const uptimeMs = asCount(value?.["uptime_ms"]);
  if (hostname === undefined || generation === undefined || !network || !workload || restarts === undefined)
    return undefined;
  if (!health || bootId === undefined || uptimeMs === undefined) return undefined;
  return compact<GuestStatus>({
    configVersion: asText(value?.["config_version"], 128),
    hostname,
    generation,
    network,
    workload: { ...workload, restarts },
    health,
    bootId,
    uptimeMs,
    memory: {
      totalKib: asCount(memory?.["total_kib"]) ?? 0,
      availableKib: asCount(memory?.["available_kib"]) ?? 0,
      agentKib: asCount(memory?.["agent_kib"]) ?? 0,
    },
  });
}
