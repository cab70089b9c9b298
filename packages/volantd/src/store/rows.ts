/** From rows to records. The schema's checks hold what these conversions rely on. */
import type { SQLOutputValue } from "node:sqlite";
import type { Manifest, VmStatus } from "@volant/contract";
import type { VmSpec } from "../model/vm-spec.ts";
import type { Desired } from "../model/vm-state.ts";
import type { PluginRecord, VmRecord } from "./store.ts";

type Row = Record<string, SQLOutputValue>;

function text(row: Row, column: string): string {
  const value = row[column];
  if (typeof value !== "string") throw new TypeError(`column ${column} holds no text`);
  return value;
}

function optionalText(row: Row, column: string): string | undefined {
  return row[column] === null ? undefined : text(row, column);
}

function integer(row: Row, column: string): number {
  const value = Number(row[column]);
  if (!Number.isSafeInteger(value)) throw new TypeError(`column ${column} holds no integer`);
  return value;
}

export function vmRecord(row: Row): VmRecord {
  return {
    id: integer(row, "id"),
    spec: JSON.parse(text(row, "spec")) as VmSpec,
    mac: text(row, "mac"),
    cid: integer(row, "cid"),
    tap: optionalText(row, "tap"),
    address: row["address"] === null ? undefined : integer(row, "address"),
    desired: text(row, "desired") as Desired,
    generation: integer(row, "generation"),
    startedGeneration: integer(row, "started_generation"),
    runningGeneration: integer(row, "running_generation"),
    endedGeneration: integer(row, "ended_generation"),
    endedStatus: optionalText(row, "ended_status") as "stopped" | "crashed" | undefined,
    endedReason: optionalText(row, "ended_reason"),
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
