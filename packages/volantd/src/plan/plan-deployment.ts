/**
 * What a deployment's replicas need, worked out from its row and from what is seen of them. Pure.
 *
 * - What is beyond the number goes first, the highest first; what is missing is made, the lowest first; what ended is started again, after a pause.
 * - A roll-out changes replicas where they are: those that are down first, then the lowest. It never has more than `maxUnavailable` of them down, and takes
 *   a ready one down only while no more than that many are down for whatever reason.
 * - It goes on when a changed one has been ready for `minReadyMs`. One that it changed and that is not so in time ends the roll-out: the others stay as they are until somebody says what is to be.
 */
export interface DesiredDeployment {
  readonly replicas: number;
  /** Of the configuration that is wanted: one of the history, not always the newest. */
  readonly version: number;
  /** The last one that all replicas had, ready; undefined when there was none yet. */
  readonly rolledOut: number | undefined;
  readonly maxUnavailable: number;
  readonly readyTimeoutMs: number;
  readonly minReadyMs: number;
  readonly paused: boolean;
  /** Why the roll-out of `version` has stopped. */
  readonly failure: string | undefined;
  readonly deleting: boolean;
}

/** `unknown`: it was running, and its agent has not said yet, to this volantd, how it is. */
export type ReplicaCondition = "ready" | "unready" | "unknown" | "ended" | "deleting";

/** Times are milliseconds of one clock. */
export interface ObservedReplica {
  readonly vmId: number;
  readonly index: number;
  readonly version: number;
  readonly condition: ReplicaCondition;
  /** Since when it has not been ready, for long enough, with this version; undefined once it has been. */
  readonly unreadySinceMs: number | undefined;
  /** When it will have been ready for long enough, if it stays so. */
  readonly settlesAtMs: number | undefined;
  /** When one that ended may be started again. */
  readonly startAtMs: number | undefined;
}

export type DeploymentStep =
  | { readonly kind: "delete"; readonly vmId: number }
  | { readonly kind: "start"; readonly vmId: number }
  | { readonly kind: "update"; readonly vmId: number; readonly version: number }
  | { readonly kind: "create"; readonly index: number; readonly version: number }
  /** The roll-out stops, because of this replica. */
  | { readonly kind: "fail"; readonly vmId: number }
  /** All replicas have the version, and are ready. */
  | { readonly kind: "complete" }
  /** Nothing is left of a deployment that is being deleted. */
  | { readonly kind: "forget" };

export interface DeploymentPlan {
  readonly steps: readonly DeploymentStep[];
  /** When to look again though nothing happens. */
  readonly wakeAtMs: number | undefined;
}

/** Replicas whose number is in range, and that are not on their way out. */
function members(deployment: DesiredDeployment, replicas: readonly ObservedReplica[]): ObservedReplica[] {
  return replicas
    .filter(({ index, condition }) => index <= deployment.replicas && condition !== "deleting")
    .toSorted((a, b) => a.index - b.index);
}

/** Whether every replica that there is has the version that is wanted, and it has worked once. */
export function isRolledOut(deployment: DesiredDeployment, replicas: readonly ObservedReplica[]): boolean {
  const { version, rolledOut } = deployment;
  return rolledOut === version && members(deployment, replicas).every((replica) => replica.version === version);
}

/** Ready, and for long enough. */
function isSettled({ condition, unreadySinceMs }: ObservedReplica): boolean {
  return condition === "ready" && unreadySinceMs === undefined;
}

/** Whether all replicas are there with the version that is wanted, ready. */
export function isWhole(deployment: DesiredDeployment, replicas: readonly ObservedReplica[]): boolean {
  const all = members(deployment, replicas);
  return (
    all.length === deployment.replicas &&
    all.every((replica) => replica.version === deployment.version && isSettled(replica))
  );
}

/** Those that are down before those that are not: changing them costs nothing. */
const ORDER: Readonly<Record<ReplicaCondition, number>> = { ended: 0, unready: 1, unknown: 2, ready: 3, deleting: 4 };

function chooseUpdates(deployment: DesiredDeployment, all: readonly ObservedReplica[]): ObservedReplica[] {
  const { version, maxUnavailable, replicas } = deployment;
  let changing = all.filter((replica) => replica.version === version && !isSettled(replica)).length;
  let down = replicas - all.filter(({ condition }) => condition === "ready").length;
  const outdated = all
    .filter((replica) => replica.version !== version)
    .toSorted((a, b) => ORDER[a.condition] - ORDER[b.condition] || a.index - b.index);
  const chosen: ObservedReplica[] = [];
  for (const replica of outdated) {
    if (changing >= maxUnavailable) break;
    const { condition } = replica;
    const downThen = down + (condition === "ready" ? 1 : 0);
    // Whether one that has not spoken yet is well will be known soon.
    if ((condition === "ready" || condition === "unknown") && downThen > maxUnavailable) break;
    chosen.push(replica);
    changing += 1;
    down = downThen;
  }
  return chosen;
}

function earliest(times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter((time) => time !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

export function planDeployment(
  deployment: DesiredDeployment,
  replicas: readonly ObservedReplica[],
  nowMs: number,
): DeploymentPlan {
  const wanted = deployment.deleting ? 0 : deployment.replicas;
  const surplus = replicas
    .filter(({ index, condition }) => index > wanted && condition !== "deleting")
    .toSorted((a, b) => b.index - a.index);
  const deletes = surplus.map(({ vmId }): DeploymentStep => ({ kind: "delete", vmId }));
  if (deployment.deleting) {
    return { steps: replicas.length === 0 ? [{ kind: "forget" }] : deletes, wakeAtMs: undefined };
  }
  const { version, rolledOut, readyTimeoutMs, minReadyMs } = deployment;
  const all = members(deployment, replicas);
  const whole = isWhole(deployment, replicas);
  if (whole && (rolledOut !== version || deployment.failure !== undefined)) {
    return { steps: [...deletes, { kind: "complete" }], wakeAtMs: undefined };
  }
  const stopped = deployment.paused || deployment.failure !== undefined;
  const rolling = !stopped && !isRolledOut(deployment, replicas);
  const limits = all
    .filter((replica) => replica.version === version && !isSettled(replica))
    .map(({ vmId, unreadySinceMs }) => ({ vmId, atMs: (unreadySinceMs ?? nowMs) + readyTimeoutMs + minReadyMs }));
  const late = rolling ? limits.find(({ atMs }) => atMs <= nowMs) : undefined;
  if (late !== undefined) return { steps: [...deletes, { kind: "fail", vmId: late.vmId }], wakeAtMs: undefined };

  const updated = rolling ? chooseUpdates(deployment, all) : [];
  const updates = updated.map(({ vmId }): DeploymentStep => ({ kind: "update", vmId, version }));
  const ended = all.filter((replica) => replica.condition === "ended" && !updated.includes(replica));
  const due = ended.filter(({ startAtMs = nowMs }) => startAtMs <= nowMs);
  const starts = due.map(({ vmId }): DeploymentStep => ({ kind: "start", vmId }));
  // What a stopped roll-out has not proven is not what new replicas should be.
  const made = stopped ? (rolledOut ?? version) : version;
  const there = new Set(replicas.map(({ index }) => index));
  const missing = Array.from({ length: wanted }, (_none, position) => position + 1).filter(
    (index) => !there.has(index),
  );
  const creates = missing.map((index): DeploymentStep => ({ kind: "create", index, version: made }));
  const waits = ended.filter((replica) => !due.includes(replica)).map(({ startAtMs }) => startAtMs);
  // Also a roll-out that was stopped is over when all have come about.
  const isDue = rolling || rolledOut !== version || deployment.failure !== undefined;
  return {
    steps: [...deletes, ...starts, ...updates, ...creates],
    wakeAtMs: earliest([
      ...waits,
      ...(isDue ? all.map(({ settlesAtMs }) => settlesAtMs) : []),
      ...(rolling ? limits.map(({ atMs }) => atMs) : []),
    ]),
  };
}
