/** A deployment as users see it, and what of the live VMs its plan goes by. */
import type { Deployment, DeploymentVersion, VmEvent, VmEventType } from "@volant/contract";
import { hasEnded } from "../model/vm-state.ts";
import type { ReplicaCondition } from "../plan/plan-deployment.ts";
import type { RolloutView } from "../plan/rollout.ts";
import type { DeploymentRecord, DeploymentVersionRecord } from "../store/deployment-store.ts";
import type { VmRecord } from "../store/store.ts";
import type { Lane } from "./lane.ts";

/** How a replica is. Ready is what its agent says now, and not what once was: one that has stopped answering is not. */
export function replicaCondition(record: VmRecord, lane: Lane | undefined, nowMs: number): ReplicaCondition {
  if (record.desired === "absent") return "deleting";
  if (hasEnded(record)) return "ended";
  if (record.status !== "running") return "unready";
  const session = lane?.session;
  const guest = session?.generation === record.generation ? session.view() : undefined;
  if ((guest?.silentSinceMs ?? Number.POSITIVE_INFINITY) <= nowMs) return "unready";
  if (guest === undefined || !guest.attached || guest.workload === undefined) return "unknown";
  if (guest.workload !== "running" || guest.health === "unhealthy") return "unready";
  const checked = record.spec.manifest.health_check !== undefined;
  return checked && guest.health !== "healthy" ? "unknown" : "ready";
}

export function deploymentView(
  record: DeploymentRecord,
  wanted: DeploymentVersionRecord["spec"],
  { ready, updated, unavailable, state, reason }: RolloutView,
): Deployment {
  return {
    name: record.name,
    desired_replicas: record.replicas,
    ready_replicas: ready,
    config: wanted.config,
    created_at: record.createdAt,
    updated_at: record.updatedAt,
    updated_replicas: updated,
    unavailable,
    version: record.version,
    max_unavailable: record.maxUnavailable,
    ready_timeout_ms: record.readyTimeoutMs,
    min_ready_ms: record.minReadyMs,
    paused: record.paused,
    rollout: { state, ...(reason === undefined ? {} : { reason }) },
  };
}

export function deploymentVersionView(record: DeploymentVersionRecord): DeploymentVersion {
  const { id, version, updatedAt, spec, replicas } = record;
  return { id, version, updated_at: updatedAt, config: spec.config, replicas };
}

export function deploymentEvent(
  type: VmEventType & `DEPLOYMENT_${string}`,
  name: string,
  extra: { readonly now: Date; readonly message?: string; readonly reason?: string | undefined },
): VmEvent {
  const { now, message, reason } = extra;
  return {
    type,
    name,
    ...(reason === undefined ? {} : { reason }),
    timestamp: now.toISOString(),
    ...(message === undefined ? {} : { message }),
  };
}
