/** Deployments in memory that make no VMs: a test says how many replicas are ready. */
import { EventEmitter, once } from "node:events";
import { VolantError, type Deployment, type DeploymentVersion, type VmEvent } from "@volant/contract";
import type { DeploymentUseCases } from "../../engine/use-cases.ts";

export interface StandInDeployments {
  readonly useCases: DeploymentUseCases;
  /** Moves a deployment's roll-out and publishes the event. */
  move(name: string, ready: number, state: Deployment["rollout"]["state"], reason?: string): void;
}

export function createStandInDeployments(
  timestamp: string,
  publish: (event: VmEvent) => void,
  isVm: (name: string) => boolean,
): StandInDeployments {
  const all = new Map<string, Deployment>();
  /** What was made by requests with an `Idempotency-Key`. */
  const keyed = new Map<string, Deployment>();
  const moved = new EventEmitter();
  const versions = new Map<string, readonly DeploymentVersion[]>();

  function find(name: string): Deployment {
    const found = all.get(name);
    if (found === undefined) throw new VolantError("not_found", `there is no deployment named "${name}"`);
    return found;
  }
  function put(deployment: Deployment, type: VmEvent["type"]): Deployment {
    all.set(deployment.name, deployment);
    const { state, reason } = deployment.rollout;
    publish({ type, name: deployment.name, timestamp, message: state, ...(reason === undefined ? {} : { reason }) });
    return deployment;
  }
  function scaled(deployment: Deployment, replicas: number): Deployment {
    const vm = Array.from({ length: replicas }, (_none, index) => `${deployment.name}-${index + 1}`).find(isVm);
    if (vm !== undefined) throw new VolantError("exists", `a VM named "${vm}" exists already`);
    const { ready_replicas: ready } = deployment;
    return { ...deployment, desired_replicas: replicas, unavailable: Math.max(0, replicas - ready) };
  }
  function want(deployment: Deployment, config: Deployment["config"], version: number): Deployment {
    return { ...deployment, config, version, updated_replicas: 0, rollout: { state: "progressing" } };
  }

  const useCases: DeploymentUseCases = {
    list: () => [...all.values()],
    get: find,
    async create({ name, config, replicas = 1, ...settings }, key) {
      const before = key === undefined ? undefined : keyed.get(key);
      if (before !== undefined) return before;
      if (all.has(name)) throw new VolantError("exists", `a deployment named "${name}" exists already`);
      versions.set(name, [{ id: 1, version: 1, updated_at: timestamp, config, replicas }]);
      const deployment: Deployment = {
        name,
        desired_replicas: replicas,
        ready_replicas: 0,
        config,
        created_at: timestamp,
        updated_at: timestamp,
        updated_replicas: 0,
        unavailable: replicas,
        version: 1,
        max_unavailable: settings.max_unavailable ?? 1,
        ready_timeout_ms: settings.ready_timeout_ms ?? 120_000,
        min_ready_ms: settings.min_ready_ms ?? 2000,
        paused: settings.paused ?? false,
        rollout: { state: "progressing" },
      };
      const made = put(scaled(deployment, replicas), "DEPLOYMENT_CREATED");
      if (key !== undefined) keyed.set(key, made);
      return made;
    },
    async wait(name, { timeoutMs }) {
      const limit = AbortSignal.timeout(timeoutMs);
      // A test moves it.
      while (find(name).rollout.state === "progressing") {
        try {
          await once(moved, "move", { signal: limit });
        } catch {
          return false;
        }
      }
      return true;
    },
    async patch(name, { replicas, config, ...settings }) {
      let deployment = find(name);
      if (replicas !== undefined) deployment = scaled(deployment, replicas);
      if (config !== undefined) {
        const given = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== null));
        const history = versions.get(name) ?? [];
        const version = history.length + 1;
        deployment = want(deployment, { ...deployment.config, ...given }, version);
        const written = { id: version, version, updated_at: timestamp, config: deployment.config, replicas: 0 };
        versions.set(name, [written, ...history]);
      }
      return put({ ...deployment, ...settings }, "DEPLOYMENT_UPDATED");
    },
    async rollback(name, version) {
      const deployment = find(name);
      const found = versions.get(name)?.find((entry) => entry.version === version);
      if (found === undefined) throw new VolantError("not_found", `deployment "${name}" has no version ${version}`);
      return put(want(deployment, found.config, version), "DEPLOYMENT_UPDATED");
    },
    history(name, limit = 100) {
      find(name);
      return (versions.get(name) ?? []).slice(0, limit);
    },
    async delete(name, patience) {
      find(name);
      if (patience?.timeoutMs === 0) throw new VolantError("timeout", `deployment "${name}" is not gone yet`);
      all.delete(name);
      publish({ type: "DEPLOYMENT_DELETED", name, timestamp });
    },
  };
  return {
    useCases,
    move(name, ready, state, reason) {
      const deployment = find(name);
      const rollout = { state, ...(reason === undefined ? {} : { reason }) };
      const unavailable = deployment.desired_replicas - ready;
      put(
        { ...deployment, ready_replicas: ready, updated_replicas: ready, unavailable, rollout },
        "DEPLOYMENT_UPDATED",
      );
      moved.emit("move");
    },
  };
}
