/** The port to what must be remembered of deployments. Every method is one transaction and durable when it returns. */
import type { VmSpec } from "../model/vm-spec.ts";
import type { DesiredDeployment } from "../plan/plan-deployment.ts";
import type { KeyedRequest, VmRecord } from "./store.ts";

export interface DeploymentRecord extends DesiredDeployment {
  /** Never reused. */
  readonly id: number;
  readonly name: string;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly updatedAt: string;
}

export interface NewDeployment {
  readonly name: string;
  readonly replicas: number;
  /** What its first replica is to be; the others differ in their names. It holds a copy of the manifest, so that a version never changes. */
  readonly spec: VmSpec;
  readonly maxUnavailable: number;
  readonly readyTimeoutMs: number;
  readonly minReadyMs: number;
  readonly paused: boolean;
  readonly request?: KeyedRequest<DeploymentRecord> | undefined;
}

/** What a user changes. Another version, and the end of a pause, also end what a failure has stopped. */
export interface DeploymentChange {
  readonly replicas?: number | undefined;
  /** A new version, which is wanted from now on. */
  readonly spec?: VmSpec | undefined;
  /** One of the history, which is wanted from now on. */
  readonly version?: number | undefined;
  readonly maxUnavailable?: number | undefined;
  readonly readyTimeoutMs?: number | undefined;
  readonly minReadyMs?: number | undefined;
  readonly paused?: boolean | undefined;
  readonly deleting?: true | undefined;
}

export interface DeploymentVersionRecord {
  readonly id: number;
  readonly version: number;
  readonly updatedAt: string;
  readonly spec: VmSpec;
  /** How many replicas have it. */
  readonly replicas: number;
}

export interface DeploymentStore {
  /** @throws VolantError `exists` when there is one of that name, or a VM has the name of one of its replicas */
  create(deployment: NewDeployment): DeploymentRecord;
  get(id: number): DeploymentRecord | undefined;
  find(name: string): DeploymentRecord | undefined;
  /** By name. */
  list(): readonly DeploymentRecord[];
  /** In the order of their numbers, with those that are being deleted. */
  replicas(id: number): readonly VmRecord[];
  /** @throws VolantError `exists` when a VM has the name of one of its replicas; Error when there is no such deployment or version */
  change(id: number, change: DeploymentChange): DeploymentRecord;
  /** Undefined when it is not in the history (any more). */
  spec(id: number, version: number): VmSpec | undefined;
  /** The newest first, at most `limit`. */
  history(id: number, limit: number): readonly DeploymentVersionRecord[];
  /** How the roll-out of a version went; nothing when another one is wanted meanwhile. */
  recordRollout(id: number, version: number, outcome: { readonly failure: string | undefined }): void;
  /** Ends a deployment that has no VM any more; the schema keeps one that has. */
  remove(id: number): void;
}
