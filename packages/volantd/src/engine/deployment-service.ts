/** What users do with deployments: each writes its intent down, and wakes the keeper. What is wrong is said here, and not later by a loop that is stuck. */
import {
  DEFAULT_MAX_UNAVAILABLE,
  DEFAULT_MIN_READY_MS,
  DEFAULT_READY_TIMEOUT_MS,
  VolantError,
  type CreateDeploymentRequest,
  type Deployment,
  type DeploymentPatch,
  type DeploymentVersion,
  type Manifest,
  type VmConfigPatch,
} from "@volant/contract";
import { isDeepStrictEqual } from "node:util";
import type { ImageStore } from "../image/image.ts";
import { checkReplicable, checkReplicaNames, replicaName } from "../model/deployment.ts";
import type { ManagedNetwork } from "../model/manifest.ts";
import { wantedPorts } from "../model/published-port.ts";
import { givenFields, mergeConfig } from "../model/vm-config.ts";
import { requestedPlugin, resolveConfig, resolveVm, type VmSpec } from "../model/vm-spec.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import type { DeploymentChange, DeploymentRecord } from "../store/deployment-store.ts";
import type { Store } from "../store/store.ts";
import type { DeploymentKeeper } from "./deployment-keeper.ts";
import { deploymentEvent, deploymentVersionView, deploymentView } from "./deployment-view.ts";
import type { EventHub } from "./event-hub.ts";
import { cameAbout } from "./came-about.ts";
import { type Keyed, KeyedRequests } from "./keyed-requests.ts";
import type { DeploymentUseCases, Patience } from "./use-cases.ts";
import { checkTapReady, prepareVm, usablePlugin } from "./vm-preparation.ts";

export interface DeploymentServiceOptions {
  readonly store: Store;
  readonly keeper: DeploymentKeeper;
  readonly network: Pick<NetworkManager, "tapNames" | "checkReady">;
  readonly images: ImageStore;
  readonly events: Pick<EventHub, "publish">;
  readonly managed: ManagedNetwork;
  readonly antiSpoof?: boolean | undefined;
  readonly now: () => Date;
}

/** As for one VM; many are torn down several at a time. */
const DELETE_TIMEOUT_MS = 60_000;
const DELETE_TIMEOUT_MS_EACH = 1000;
/** No limit (sqlite.org/lang_select.html). */
const ALL = -1;
/** Others may write while a change is being checked; it is then made anew from what they wrote. */
const ATTEMPTS = 10;

export class DeploymentService implements DeploymentUseCases {
  readonly #options: DeploymentServiceOptions;
  readonly #requests: KeyedRequests;

  constructor(options: DeploymentServiceOptions) {
    this.#options = options;
    this.#requests = new KeyedRequests(options.store);
  }

  list(): readonly Deployment[] {
    return this.#options.store.deployments.list().map((record) => this.#show(record));
  }

  get(name: string): Deployment {
    return this.#show(this.#find(name));
  }

  history(name: string, limit = ALL): readonly DeploymentVersion[] {
    return this.#options.store.deployments.history(this.#find(name).id, limit).map(deploymentVersionView);
  }

  create(request: CreateDeploymentRequest, key?: string): Promise<Deployment> {
    return this.#requests.run("deployments.create", key, request, (keyed) => this.#create(request, keyed));
  }

  async #create(request: CreateDeploymentRequest, keyed: Keyed | undefined): Promise<Deployment> {
    const { store, images, managed, antiSpoof, keeper } = this.#options;
    const { name, config, replicas = 1 } = request;
    checkReplicaNames(name, replicas);
    const before = store.deployments.find(name);
    if (before !== undefined) {
      const state = before.deleting ? "is being deleted" : "exists already";
      throw new VolantError("exists", `a deployment named "${name}" ${state}`);
    }
    const vm = { name: replicaName(name, 1), config };
    const plugin = requestedPlugin(vm);
    const manifest = plugin === undefined ? (config.manifest as Manifest) : this.#manifestOf(plugin);
    const resolved = resolveVm(vm, manifest, managed, antiSpoof);
    checkReplicable(`deployment "${name}"`, resolved, replicas);
    const spec = await prepareVm(images, resolved);
    await this.#checkHost(spec);
    const answer = (made: DeploymentRecord) => JSON.stringify(this.#show(made));
    const made = {
      request: keyed && { ...keyed, answer },
      name,
      replicas,
      spec,
      maxUnavailable: request.max_unavailable ?? DEFAULT_MAX_UNAVAILABLE,
      readyTimeoutMs: request.ready_timeout_ms ?? DEFAULT_READY_TIMEOUT_MS,
      minReadyMs: request.min_ready_ms ?? DEFAULT_MIN_READY_MS,
      paused: request.paused ?? false,
    };
    const record = store.together(() => {
      const created = store.deployments.create(made);
      this.#publish("DEPLOYMENT_CREATED", created, `${replicas} replicas`);
      return created;
    });
    keeper.wake(record.id, true);
    return this.#show(record);
  }

  async patch(name: string, patch: DeploymentPatch): Promise<Deployment> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const changed = await this.#tryPatch(name, patch);
      if (changed !== undefined) return this.#show(changed);
    }
    throw new VolantError("wrong_state", `deployment "${name}" is being changed by others: try again`);
  }

  /** Undefined when somebody else has changed it meanwhile. */
  async #tryPatch(name: string, patch: DeploymentPatch): Promise<DeploymentRecord | undefined> {
    const { store } = this.#options;
    const record = this.#findLiving(name);
    const {
      replicas,
      max_unavailable: maxUnavailable,
      ready_timeout_ms: readyTimeoutMs,
      min_ready_ms: minReadyMs,
    } = patch;
    const { paused, config } = patch;
    if (replicas !== undefined) checkReplicaNames(name, replicas);
    const before = this.#specOf(record, record.version);
    const spec = config === undefined ? before : await this.#changedSpec(record, before, config);
    checkReplicable(`deployment "${name}"`, spec, replicas ?? record.replicas);
    const now = store.deployments.find(name);
    if (now?.id !== record.id || now.version !== record.version || now.deleting) return undefined;
    const isNew = !isDeepStrictEqual(plain(spec), plain(before));
    return this.#change(record, {
      replicas,
      maxUnavailable,
      readyTimeoutMs,
      minReadyMs,
      paused,
      ...(isNew ? { spec } : {}),
    });
  }

  async rollback(name: string, version: number): Promise<Deployment> {
    const record = this.#findLiving(name);
    const spec = this.#options.store.deployments.spec(record.id, version);
    if (spec === undefined) {
      throw new VolantError("not_found", `deployment "${name}" has no version ${version} in its history`, {
        hint: `volar deployments history ${name}`,
      });
    }
    checkReplicable(`deployment "${name}", version ${version}`, spec, record.replicas);
    return this.#show(this.#change(record, { version }));
  }

  async wait(name: string, patience: Patience): Promise<boolean> {
    const { store, keeper } = this.#options;
    const { id } = this.#find(name);
    const hasOutcome = (): boolean => {
      const now = store.deployments.get(id);
      if (now === undefined || now.deleting) {
        throw new VolantError("not_found", `deployment "${name}" was deleted while it was waited for`);
      }
      const { state, ready } = keeper.rollout(now);
      return state === "complete" ? ready === now.replicas : state !== "progressing";
    };
    const waiting = keeper.until(id, hasOutcome, patience, () => `deployment "${name}" is not ready yet`);
    return cameAbout(waiting, patience);
  }

  async delete(name: string, patience?: Patience): Promise<void> {
    const { store, keeper } = this.#options;
    const { id, deleting, replicas } = this.#find(name);
    if (!deleting) this.#change(this.#find(name), { deleting: true });
    else keeper.wake(id, true);
    const usual: Patience = { timeoutMs: DELETE_TIMEOUT_MS + replicas * DELETE_TIMEOUT_MS_EACH };
    await keeper.untilGone(id, patience ?? usual, () => {
      const left = store.deployments.replicas(id).map(({ spec, reason }) => `${spec.name} (${reason ?? "no reason"})`);
      return `deployment "${name}" is not gone yet: ${left.slice(0, 3).join(", ")}`;
    });
  }

  #change(record: DeploymentRecord, change: DeploymentChange): DeploymentRecord {
    const { store, keeper } = this.#options;
    const given = Object.values(change).some((value) => value !== undefined);
    if (!given) return record;
    const changed = store.together(() => {
      const now = store.deployments.change(record.id, change);
      const words = [
        now.replicas === record.replicas ? [] : [`${now.replicas} replicas`],
        now.version === record.version ? [] : [`version ${now.version}`],
        now.paused === record.paused ? [] : [now.paused ? "paused" : "resumed"],
        now.deleting ? ["deleting"] : [],
      ].flat();
      if (words.length > 0) this.#publish("DEPLOYMENT_UPDATED", now, words.join(", "));
      return now;
    });
    keeper.wake(record.id, true);
    return changed;
  }

  async #changedSpec({ name }: DeploymentRecord, before: VmSpec, patch: VmConfigPatch): Promise<VmSpec> {
    const { images, managed, antiSpoof } = this.#options;
    const given = givenFields(patch);
    const config = mergeConfig(before.config, patch);
    const plugin = given.plugin === undefined ? undefined : this.#manifestOf(given.plugin);
    const manifest = given.manifest ?? plugin ?? before.manifest;
    const resolved = resolveConfig(replicaName(name, 1), config, { manifest, managed, antiSpoof });
    const spec = await prepareVm(images, resolved);
    const same = before.bridge === spec.bridge && before.mode === spec.mode && before.antiSpoof === spec.antiSpoof;
    if (!same) await this.#checkHost(spec);
    return spec;
  }

  #manifestOf(plugin: string): Manifest {
    return usablePlugin(plugin, this.#options.store.findPlugin(plugin)).manifest;
  }

  /** What of the host keeps even the first replica from being made. */
  async #checkHost(spec: VmSpec): Promise<void> {
    const { network, store } = this.#options;
    for (const { hostPort, ...port } of wantedPorts(`VM "${spec.name}"`, spec.config.expose)) {
      if (hostPort !== undefined) store.checkPort(store.findVm(spec.name)?.id, { ...port, hostPort });
    }
    await checkTapReady(spec, network);
  }

  #publish(type: "DEPLOYMENT_CREATED" | "DEPLOYMENT_UPDATED", { name }: DeploymentRecord, message: string): void {
    const { events, now } = this.#options;
    events.publish(deploymentEvent(type, name, { now: now(), message }));
  }

  #find(name: string): DeploymentRecord {
    const record = this.#options.store.deployments.find(name);
    if (record !== undefined) return record;
    throw new VolantError("not_found", `there is no deployment named "${name}"`, { hint: "volar deployments list" });
  }

  #findLiving(name: string): DeploymentRecord {
    const record = this.#find(name);
    if (!record.deleting) return record;
    throw new VolantError("wrong_state", `deployment "${name}" is being deleted and can't be changed`);
  }

  #specOf({ id, name }: DeploymentRecord, version: number): VmSpec {
    const spec = this.#options.store.deployments.spec(id, version);
    if (spec === undefined) throw new Error(`deployment ${name} has lost version ${version}, which it wants`);
    return spec;
  }

  #show(record: DeploymentRecord): Deployment {
    return deploymentView(record, this.#specOf(record, record.version), this.#options.keeper.rollout(record));
  }
}

/** As the store will give it back. */
function plain(spec: VmSpec): unknown {
  return JSON.parse(JSON.stringify(spec));
}
