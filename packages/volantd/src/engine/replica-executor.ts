/**
 * Carries out what a deployment's plan says of one replica. Each step is one transaction, made in the same turn in which the rows were looked at again: what
 * was planned from older rows, and no longer holds, is not done. The loop of VMs does the rest.
 */
import type { ManagedNetwork } from "../model/manifest.ts";
import { hasEnded } from "../model/vm-state.ts";
import { checkReplicable, replicaName } from "../model/deployment.ts";
import { keepChosen, wantedPorts } from "../model/published-port.ts";
import { latestSpec } from "../model/vm-config.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import type { DeploymentStep } from "../plan/plan-deployment.ts";
import type { DeploymentRecord } from "../store/deployment-store.ts";
import type { Intent, Store, VmRecord } from "../store/store.ts";
import type { Engine } from "./engine.ts";
import type { EventHub } from "./event-hub.ts";
import type { PortKeeper } from "./port-keeper.ts";
import { newVm } from "./vm-preparation.ts";
import { vmEvent } from "./vm-view.ts";

export interface ReplicaExecutorOptions {
  readonly store: Store;
  readonly engine: Pick<Engine, "wake">;
  readonly network: Pick<NetworkManager, "tapNames">;
  readonly ports: PortKeeper;
  readonly events: Pick<EventHub, "publish">;
  readonly managed: ManagedNetwork;
  readonly now: () => Date;
}

type ReplicaStep = Extract<DeploymentStep, { kind: "create" | "update" | "start" | "delete" }>;

export class ReplicaExecutor {
  readonly #options: ReplicaExecutorOptions;

  constructor(options: ReplicaExecutorOptions) {
    this.#options = options;
  }

  /** @throws VolantError what the making or changing of a VM throws */
  async execute(deploymentId: number, step: ReplicaStep): Promise<void> {
    switch (step.kind) {
      case "create":
        return this.#create(deploymentId, step);
      case "update":
        return this.#update(deploymentId, step);
      case "start":
        return this.#start(step.vmId);
      case "delete":
        return this.#delete(step.vmId);
    }
  }

  async #create(
    deploymentId: number,
    { index, version }: { readonly index: number; readonly version: number },
  ): Promise<void> {
    const { store, engine, events, ports, now, managed, network } = this.#options;
    const deployment = store.deployments.get(deploymentId);
    const spec = deployment === undefined ? undefined : this.#specOf(deployment, index, version);
    if (spec === undefined) return;
    const claim = await ports.claim(wantedPorts(`VM "${spec.name}"`, spec.config.expose));
    let record: VmRecord | undefined;
    try {
      const then = store.deployments.get(deploymentId);
      const isWanted =
        then !== undefined && !then.deleting && index <= then.replicas && then.version === deployment?.version;
      if (!isWanted || store.findVm(spec.name) !== undefined) return;
      const made = {
        ...newVm(spec, { network, managed }, claim.ports),
        replica: { deploymentId, index, version },
      };
      record = store.together(() => {
        const created = store.createVm(made);
        events.publish(vmEvent("VM_CREATED", created, { now: now() }));
        return created;
      });
      claim.keep(record.id);
    } finally {
      if (record === undefined) claim.release();
    }
    engine.wake(record.id, true);
  }

  #specOf({ id, name, replicas }: DeploymentRecord, index: number, version: number): VmSpec | undefined {
    const spec = this.#options.store.deployments.spec(id, version);
    if (spec === undefined) return undefined;
    checkReplicable(`deployment "${name}"`, spec, replicas);
    return { ...spec, name: replicaName(name, index) };
  }

  /** In place: name, id, address and MAC stay, and with them what others know the replica by. */
  async #update(
    deploymentId: number,
    { vmId, version }: { readonly vmId: number; readonly version: number },
  ): Promise<void> {
    const { store, engine, ports } = this.#options;
    const before = store.getVm(vmId);
    const deployment = store.deployments.get(deploymentId);
    if (before?.replica === undefined || deployment === undefined) return;
    // Its end is told first, in a moment.
    if (before.endedGeneration === before.generation && !hasEnded(before)) return;
    const spec = this.#specOf(deployment, before.replica.index, version);
    if (spec === undefined) return;
    const { expose = [] } = latestSpec(before).config;
    const chosen = before.ports.filter((_, position) => expose[position]?.host_port === undefined);
    const wanted = keepChosen(wantedPorts(`VM "${spec.name}"`, spec.config.expose), chosen);
    const claim = await ports.claim(wanted, vmId, before.ports);
    let written: VmRecord | undefined;
    try {
      const then = store.deployments.get(deploymentId);
      const stops =
        then === undefined || then.deleting || then.paused || then.failure !== undefined || then.version !== version;
      if (!stops && store.getVm(vmId)?.desired === "running") {
        const change = { basis: before.configVersion, spec, ports: claim.ports };
        written = store.together(() => {
          const updated = store.updateReplica(vmId, version, change, this.#startOf(spec.name));
          if (updated !== undefined) this.#tell(updated, `version ${version} of its deployment`);
          return updated;
        });
      }
      if (written !== undefined) claim.keep(vmId);
    } finally {
      if (written === undefined) claim.release();
    }
    await ports.sync();
    if (written === undefined) return;
    engine.wake(vmId, true);
  }

  #startOf(name: string): Intent {
    const { managed, network } = this.#options;
    return { desired: "running", start: true, pool: managed.pool, tapNames: network.tapNames(name) };
  }

  #start(vmId: number): void {
    const { store, engine } = this.#options;
    const record = store.getVm(vmId);
    // Whoever was faster has started it already.
    if (record === undefined || record.desired === "absent" || !hasEnded(record)) return;
    store.together(() => {
      this.#tell(store.setIntent(vmId, this.#startOf(record.spec.name)), "started again by its deployment");
    });
    engine.wake(vmId, true);
  }

  /** In the transaction that makes it so. */
  #tell(record: VmRecord, message: string): void {
    const { events, now } = this.#options;
    events.publish(vmEvent("VM_UPDATED", record, { now: now(), message }));
  }

  #delete(vmId: number): void {
    const { store, engine, ports } = this.#options;
    const record = store.getVm(vmId);
    if (record === undefined || record.desired === "absent") return;
    store.setIntent(vmId, { desired: "absent", start: false });
    engine.wake(vmId, true);
    void ports.sync();
  }
}
