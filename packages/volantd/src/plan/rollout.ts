/** How far a deployment is, in the words that users see. Pure. */
import type { RolloutState } from "@volant/contract";
import { isRolledOut, type DesiredDeployment, type ObservedReplica } from "./plan-deployment.ts";

export interface RolloutView {
  readonly ready: number;
  readonly updated: number;
  readonly unavailable: number;
  readonly state: RolloutState;
  readonly reason: string | undefined;
}

/** @param trouble why the next step can't be done, and is tried again */
export function rolloutView(
  deployment: DesiredDeployment,
  observed: readonly ObservedReplica[],
  trouble: string | undefined,
): RolloutView {
  const there = observed.filter(({ condition }) => condition !== "deleting");
  const inRange = there.filter(({ index }) => index <= deployment.replicas);
  const ready = inRange.filter(({ condition }) => condition === "ready").length;
  const updated = inRange.filter(({ version }) => version === deployment.version).length;
  const counts = { ready, updated, unavailable: deployment.replicas - ready };
  const { version, failure } = deployment;
  if (deployment.deleting) {
    const left = observed.length === 1 ? "1 VM is left" : `${observed.length} VMs are left`;
    return { ...counts, state: "deleting", reason: trouble ?? left };
  }
  if (failure !== undefined) return { ...counts, state: "failed", reason: failure };
  if (isRolledOut(deployment, observed)) {
    const waits = ready === deployment.replicas ? undefined : `${ready} of ${deployment.replicas} replicas are ready`;
    return { ...counts, state: "complete", reason: trouble ?? waits };
  }
  const progress = `${updated} of ${deployment.replicas} replicas have version ${version}, and ${ready} are ready`;
  return { ...counts, state: deployment.paused ? "paused" : "progressing", reason: trouble ?? progress };
}
