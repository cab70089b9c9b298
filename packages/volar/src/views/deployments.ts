import type { Deployment, DeploymentVersion } from "@volant/contract";
import { formatFields, formatTable } from "../table.ts";

/** State of the roll-out and, where there is one, why. */
export function rolloutText({ rollout: { state, reason } }: Pick<Deployment, "rollout">): string {
  return reason === undefined ? state : `${state} (${reason})`;
}

/** Deployments as a table. */
export function deploymentTable(deployments: readonly Deployment[]): string {
  return formatTable([
    ["NAME", "READY", "UPDATED", "VERSION", "PLUGIN", "ROLLOUT"],
    ...deployments.map((deployment) => [
      deployment.name,
      `${deployment.ready_replicas}/${deployment.desired_replicas}`,
      `${deployment.updated_replicas}/${deployment.desired_replicas}`,
      String(deployment.version),
      deployment.config.plugin ?? deployment.config.manifest?.name ?? "",
      rolloutText(deployment),
    ]),
  ]);
}

/** One deployment, a line per field. */
export function deploymentFields(deployment: Deployment): string {
  const { ready_timeout_ms: timeoutMs } = deployment;
  return formatFields([
    ["name", deployment.name],
    ["replicas", deployment.desired_replicas],
    ["ready", deployment.ready_replicas],
    ["updated", deployment.updated_replicas],
    ["unavailable", deployment.unavailable],
    ["version", deployment.version],
    ["rollout", rolloutText(deployment)],
    ["paused", deployment.paused ? "yes" : undefined],
    ["max unavailable", deployment.max_unavailable],
    ["ready for", `${deployment.min_ready_ms / 1000} s`],
    ["ready within", `${timeoutMs / 1000} s`],
    ["configuration", JSON.stringify(deployment.config)],
    ["created", deployment.created_at],
    ["changed", deployment.updated_at],
  ]);
}

/** Versions as a table. */
export function deploymentHistoryTable(versions: readonly DeploymentVersion[]): string {
  return formatTable([
    ["VERSION", "UPDATED", "REPLICAS", "CONFIGURATION"],
    ...versions.map(({ version, updated_at: updatedAt, replicas, config }) => [
      String(version),
      updatedAt,
      String(replicas),
      JSON.stringify(config),
    ]),
  ]);
}
