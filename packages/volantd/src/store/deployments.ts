import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import { MAX_DEPLOYMENT_HISTORY, VolantError } from "@volant/contract";
import { parseReplicaName, replicaName } from "../model/deployment.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import type {
  DeploymentChange,
  DeploymentRecord,
  DeploymentStore,
  DeploymentVersionRecord,
  NewDeployment,
} from "./deployment-store.ts";
import type { Requests } from "./requests.ts";
import { deploymentRecord, deploymentVersion } from "./rows.ts";
import { Statements } from "./statements.ts";
import type { VmRecord } from "./store.ts";

/** Ids begin at 1. */
const NO_DEPLOYMENT = 0;

export interface DeploymentsOptions {
  readonly database: DatabaseSync;
  readonly now: () => Date;
  readonly transaction: <T>(work: () => T) => T;
  readonly requests: Pick<Requests, "remember">;
  /** The VMs of a deployment, read as the store reads VMs. */
  readonly vmsOf: (deploymentId: number) => readonly VmRecord[];
}

export class Deployments implements DeploymentStore {
  readonly #options: DeploymentsOptions;
  readonly #statements: Statements;

  constructor(options: DeploymentsOptions) {
    this.#options = options;
    this.#statements = new Statements(options.database);
  }

  #sql(text: string): StatementSync {
    return this.#statements.get(text);
  }

  create({
    name,
    replicas,
    spec,
    maxUnavailable,
    readyTimeoutMs,
    minReadyMs,
    paused,
    request,
  }: NewDeployment): DeploymentRecord {
    return this.#options.transaction(() => {
      if (this.find(name) !== undefined) {
        throw new VolantError("exists", `a deployment named "${name}" exists already`);
      }
      this.#checkReplicaNames(undefined, name, 1, replicas);
      const now = this.#options.now();
      const stamp = now.toISOString();
      const { lastInsertRowid } = this.#sql(
        `INSERT INTO deployments (name, replicas, version, max_unavailable, ready_timeout_ms, min_ready_ms, paused, created_at, updated_at)
         VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?)`,
      ).run(name, replicas, maxUnavailable, readyTimeoutMs, minReadyMs, paused ? 1 : 0, stamp, stamp);
      const id = Number(lastInsertRowid);
      this.#addVersion(id, 1, spec, stamp);
      const made = this.#mustGet(id);
      this.#options.requests.remember(request, made, now.getTime());
      return made;
    });
  }

  #addVersion(id: number, version: number, spec: VmSpec, stamp: string): void {
    this.#sql("INSERT INTO deployment_versions (deployment_id, version, updated_at, spec) VALUES (?, ?, ?, ?)").run(
      id,
      version,
      stamp,
      JSON.stringify(spec),
    );
  }

  /** What is in use somewhere is kept, however old it is. */
  #forgetOldVersions(id: number): void {
    this.#sql(
      `DELETE FROM deployment_versions WHERE deployment_id = ?1
         AND version <= (SELECT max(version) FROM deployment_versions WHERE deployment_id = ?1) - ?2
         AND version NOT IN (SELECT version FROM deployments WHERE id = ?1)
         AND version NOT IN (SELECT rolled_out FROM deployments WHERE id = ?1 AND rolled_out IS NOT NULL)
         AND version NOT IN (SELECT replica_version FROM vms WHERE deployment_id = ?1)`,
    ).run(id, MAX_DEPLOYMENT_HISTORY);
  }

  /** @throws VolantError `exists`: a name that a deployment needs is the first thing that goes wrong, and not the last */
  #checkReplicaNames(id: number | undefined, name: string, first: number, last: number): void {
    const holder = this.#sql("SELECT 1 FROM vms WHERE name = ? AND deployment_id IS NOT ?");
    for (let index = first; index <= last; index += 1) {
      const vm = replicaName(name, index);
      if (holder.get(vm, id ?? NO_DEPLOYMENT) === undefined) continue;
      throw new VolantError(
        "exists",
        `deployment "${name}" can't have ${last} replicas: a VM named "${vm}" exists already`,
        {
          hint: `delete that VM, or give the deployment another name or fewer replicas`,
        },
      );
    }
  }

  /**
   * For a VM that somebody else makes, in the transaction that does.
   *
   * @throws VolantError `exists` when its name is a deployment's, whether that has made its replica or not
   */
  checkVmName(name: string): void {
    const parsed = parseReplicaName(name);
    if (parsed === undefined) return;
    const { deployment, index } = parsed;
    const row = this.#sql("SELECT 1 FROM deployments WHERE name = ? AND replicas >= ? AND deleting = 0").get(
      deployment,
      index,
    );
    if (row === undefined) return;
    throw new VolantError(
      "exists",
      `the name "${name}" belongs to deployment "${deployment}", which has a replica of that name`,
    );
  }

  get(id: number): DeploymentRecord | undefined {
    const row = this.#sql("SELECT * FROM deployments WHERE id = ?").get(id);
    return row === undefined ? undefined : deploymentRecord(row);
  }

  #mustGet(id: number): DeploymentRecord {
    const deployment = this.get(id);
    if (deployment === undefined) throw new Error(`there is no deployment with id ${id}`);
    return deployment;
  }

  find(name: string): DeploymentRecord | undefined {
    const row = this.#sql("SELECT * FROM deployments WHERE name = ?").get(name);
    return row === undefined ? undefined : deploymentRecord(row);
  }

  list(): DeploymentRecord[] {
    return this.#sql("SELECT * FROM deployments ORDER BY name").all().map(deploymentRecord);
  }

  replicas(id: number): readonly VmRecord[] {
    return this.#options.vmsOf(id);
  }

  change(id: number, change: DeploymentChange): DeploymentRecord {
    return this.#options.transaction(() => {
      const before = this.#mustGet(id);
      const { replicas, spec, maxUnavailable, readyTimeoutMs, minReadyMs, paused } = change;
      const stamp = this.#options.now().toISOString();
      if (replicas !== undefined) this.#checkReplicaNames(id, before.name, before.replicas + 1, replicas);
      let { version } = change;
      if (spec !== undefined) {
        version = this.#newestVersion(id) + 1;
        this.#addVersion(id, version, spec, stamp);
      } else if (version !== undefined && this.spec(id, version) === undefined) {
        throw new Error(`deployment ${id} has no version ${version}`);
      }
      const goesOn = version !== undefined || paused === false;
      const values: Readonly<Record<string, SQLInputValue | undefined>> = {
        replicas,
        version,
        max_unavailable: maxUnavailable,
        ready_timeout_ms: readyTimeoutMs,
        min_ready_ms: minReadyMs,
        paused: paused === undefined ? undefined : paused ? 1 : 0,
        failure: goesOn ? null : undefined,
        deleting: change.deleting === true ? 1 : undefined,
        updated_at: stamp,
      };
      const given = Object.entries(values).filter((entry): entry is [string, SQLInputValue] => entry[1] !== undefined);
      // Names of columns are those above and nobody else's.
      this.#sql(`UPDATE deployments SET ${given.map(([column]) => `${column} = ?`).join(", ")} WHERE id = ?`).run(
        ...given.map(([, value]) => value),
        id,
      );
      if (spec !== undefined) this.#forgetOldVersions(id);
      return this.#mustGet(id);
    });
  }

  #newestVersion(id: number): number {
    const row = this.#sql("SELECT max(version) AS version FROM deployment_versions WHERE deployment_id = ?").get(id);
    return Number(row?.["version"]);
  }

  spec(id: number, version: number): VmSpec | undefined {
    const row = this.#sql("SELECT spec FROM deployment_versions WHERE deployment_id = ? AND version = ?").get(
      id,
      version,
    );
    return row === undefined ? undefined : (JSON.parse(String(row["spec"])) as VmSpec);
  }

  history(id: number, limit: number): DeploymentVersionRecord[] {
    return this.#sql(
      `SELECT *, (SELECT count(*) FROM vms WHERE vms.deployment_id = ?1 AND replica_version = version) AS replicas
       FROM deployment_versions WHERE deployment_id = ?1 ORDER BY version DESC LIMIT ?2`,
    )
      .all(id, limit)
      .map(deploymentVersion);
  }

  recordRollout(id: number, version: number, { failure }: { readonly failure: string | undefined }): void {
    this.#options.transaction(() => {
      this.#sql(
        "UPDATE deployments SET failure = ?, rolled_out = iif(?, version, rolled_out) WHERE id = ? AND version = ?",
      ).run(failure ?? null, failure === undefined ? 1 : 0, id, version);
    });
  }

  remove(id: number): void {
    this.#options.transaction(() => void this.#sql("DELETE FROM deployments WHERE id = ?").run(id));
  }
}
