/** From rows to records. The schema's checks hold what these conversions rely on. */
import type { SQLOutputValue } from "node:sqlite";
import type { Manifest, VmConfig, VmStatus } from "@volant/contract";
import { Alike } from "../alike.ts";
import { needsTapDevice } from "../model/network.ts";
import type { Replica } from "../model/deployment.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import type { Desired } from "../model/vm-state.ts";
import type { DeploymentRecord, DeploymentVersionRecord } from "./deployment-store.ts";
import { parsePorts } from "./ports.ts";
import type { ConfigVersion, PluginRecord, VmRecord } from "./store.ts";

/** A row as it was read. */
export type Row = Record<string, SQLOutputValue>;

/** A column that holds text. */
export function text(row: Row, column: string): string {
  const value = row[column];
  if (typeof value !== "string") throw new TypeError(`column ${column} holds no text`);
  return value;
}

function optionalText(row: Row, column: string): string | undefined {
  return row[column] === null ? undefined : text(row, column);
}

/** A column that holds an integer. */
export function integer(row: Row, column: string): number {
  const value = Number(row[column]);
  if (!Number.isSafeInteger(value)) throw new TypeError(`column ${column} holds no integer`);
  return value;
}

function replica(row: Row): Replica | undefined {
  if (row["deployment_id"] === null) return undefined;
  return {
    deploymentId: integer(row, "deployment_id"),
    index: integer(row, "replica_index"),
    version: integer(row, "replica_version"),
  };
}

/** Most VMs are of a few plugins, and would each hold a copy. */
const manifests = new Alike<VmSpec["manifest"]>();
const images = new Alike<VmSpec["initramfs"]>();

function vmSpec(row: Row): VmSpec {
  const spec = JSON.parse(text(row, "spec")) as VmSpec;
  const { plugin, manifest, initramfs } = spec;
  return { ...spec, manifest: manifests.of(plugin, manifest), initramfs: images.of(plugin, initramfs) };
}

export function vmRecord(row: Row): VmRecord {
  const spec = vmSpec(row);
  const next = optionalText(row, "next_spec");
  return {
    id: integer(row, "id"),
    spec,
    next: next === undefined ? undefined : (JSON.parse(next) as VmSpec),
    configVersion: integer(row, "config_version"),
    mac: text(row, "mac"),
    cid: integer(row, "cid"),
    // Its name is kept for a VM that has no tap now, and may have one again.
    tap: needsTapDevice(spec) ? optionalText(row, "tap") : undefined,
    address: row["address"] === null ? undefined : integer(row, "address"),
    ports: parsePorts(text(row, "ports")),
    replica: replica(row),
    desired: text(row, "desired") as Desired,
    generation: integer(row, "generation"),
    startedGeneration: integer(row, "started_generation"),
    runningGeneration: integer(row, "running_generation"),
    endedGeneration: integer(row, "ended_generation"),
    endedStatus: optionalText(row, "ended_status") as "stopped" | "crashed" | undefined,
    endedReason: optionalText(row, "ended_reason"),
    endedCause: optionalText(row, "ended_cause"),
    restarts: integer(row, "restarts"),
    failures: integer(row, "failures"),
    restartAtMs: row["restart_at"] === null ? undefined : integer(row, "restart_at"),
    status: text(row, "status") as VmStatus,
    reason: optionalText(row, "reason"),
    createdAt: text(row, "created_at"),
    updatedAt: text(row, "updated_at"),
  };
}

export function pluginRecord(row: Row): PluginRecord {
  return {
    name: text(row, "name"),
    enabled: row["enabled"] === 1,
    manifest: JSON.parse(text(row, "manifest")) as Manifest,
    createdAt: text(row, "created_at"),
    updatedAt: text(row, "updated_at"),
  };
}

export function configVersion(row: Row): ConfigVersion {
  return {
    id: integer(row, "id"),
    version: integer(row, "version"),
    updatedAt: text(row, "updated_at"),
    config: JSON.parse(text(row, "config")) as VmConfig,
  };
}

export function deploymentRecord(row: Row): DeploymentRecord {
  return {
    id: integer(row, "id"),
    name: text(row, "name"),
    replicas: integer(row, "replicas"),
    version: integer(row, "version"),
    rolledOut: row["rolled_out"] === null ? undefined : integer(row, "rolled_out"),
    maxUnavailable: integer(row, "max_unavailable"),
    readyTimeoutMs: integer(row, "ready_timeout_ms"),
    minReadyMs: integer(row, "min_ready_ms"),
    paused: row["paused"] === 1,
    failure: optionalText(row, "failure"),
    deleting: row["deleting"] === 1,
    createdAt: text(row, "created_at"),
    updatedAt: text(row, "updated_at"),
  };
}

export function deploymentVersion(row: Row): DeploymentVersionRecord {
  return {
    id: integer(row, "id"),
    version: integer(row, "version"),
    updatedAt: text(row, "updated_at"),
    spec: JSON.parse(text(row, "spec")) as VmSpec,
    replicas: integer(row, "replicas"),
  };
}
