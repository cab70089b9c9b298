/** VMs' configurations: read, changed, and their past. A change is checked as a new VM is, and is in force from the next start. */
import {
  MAX_CONFIG_HISTORY,
  VolantError,
  type Manifest,
  type VmConfigPatch,
  type VmConfigState,
  type VmConfigVersion,
} from "@volant/contract";
import type { ImageStore } from "../image/image.ts";
import { checkChosenAddresses } from "../model/chosen-address.ts";
import { checkNoReplica } from "../model/deployment.ts";
import type { ManagedNetwork } from "../model/manifest.ts";
import { needsTapDevice } from "../model/network.ts";
import { keepChosen, wantedPorts } from "../model/published-port.ts";
import { givenFields, latestSpec, mergeConfig } from "../model/vm-config.ts";
import { resolveConfig, type VmSpec } from "../model/vm-spec.ts";
import { checkAction } from "../model/vm-state.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import type { ConfigVersion, Store, VmRecord } from "../store/store.ts";
import type { Engine } from "./engine.ts";
import type { EventHub } from "./event-hub.ts";
import type { PortKeeper } from "./port-keeper.ts";
import { findVm } from "./find-vm.ts";
import type { ConfigUseCases } from "./use-cases.ts";
import { prepareVm, usablePlugin } from "./vm-preparation.ts";
import { vmEvent } from "./vm-view.ts";

export interface ConfigServiceOptions {
  readonly store: Store;
  readonly engine: Pick<Engine, "wake">;
  readonly network: NetworkManager;
  readonly images: ImageStore;
  readonly events: EventHub;
  readonly ports: PortKeeper;
  readonly managed: ManagedNetwork;
  readonly antiSpoof?: boolean | undefined;
  readonly now: () => Date;
}

/** Others may write while a patch is being checked; it is then made anew from what they wrote. */
const ATTEMPTS = 10;

function versionView({ id, version, updatedAt, config }: ConfigVersion): VmConfigVersion {
  return { id, version, updated_at: updatedAt, config };
}

export class ConfigService implements ConfigUseCases {
  readonly #options: ConfigServiceOptions;

  constructor(options: ConfigServiceOptions) {
    this.#options = options;
  }

  get(name: string): VmConfigState {
    return this.#state(this.#find(name));
  }

  history(name: string, limit = MAX_CONFIG_HISTORY): readonly VmConfigVersion[] {
    return this.#options.store.configHistory(this.#find(name).id, limit).map(versionView);
  }

  async patch(name: string, patch: VmConfigPatch): Promise<VmConfigState> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      const written = await this.#tryPatch(name, patch);
      if (written !== undefined) return this.#state(written);
    }
    throw new VolantError("wrong_state", `the configuration of VM "${name}" is being changed by others: try again`);
  }

  /** The VM with the patched configuration; undefined when somebody else wrote one meanwhile. */
  async #tryPatch(name: string, patch: VmConfigPatch): Promise<VmRecord | undefined> {
    const { images, engine } = this.#options;
    const record = this.#find(name);
    checkNoReplica("configured", record, (deployment) => `volar deployments update ${deployment}`);
    checkAction("configure", { name, desired: record.desired, status: record.status });
    const before = latestSpec(record);
    const resolved = this.#resolve(record, before, patch);
    const spec = await prepareVm(images, resolved);
    await this.#checkNetwork(record, before, spec);
    if (Object.keys(givenFields(patch)).length === 0) return record;
    const written = await this.#write(record, spec);
    if (written === undefined) return undefined;
    engine.wake(record.id);
    return written;
  }

  /** Writes it down. Published ports are in force at once: new ones are listened on before, others closed after. */
  async #write(record: VmRecord, spec: VmSpec): Promise<VmRecord | undefined> {
    const { store, ports } = this.#options;
    const { expose: before = [] } = latestSpec(record).config;
    const chosen = record.ports.filter((_, index) => before[index]?.host_port === undefined);
    const wanted = keepChosen(wantedPorts(`VM "${spec.name}"`, spec.config.expose), chosen);
    const claim = await ports.claim(wanted, record.id, record.ports);
    let written: VmRecord | undefined;
    try {
      written = store.together(() => {
        const version = store.writeConfig(record.id, { basis: record.configVersion, spec, ports: claim.ports });
        if (version !== undefined) this.#tell(version);
        return version;
      });
      if (written !== undefined) claim.keep(record.id);
    } finally {
      if (written === undefined) claim.release();
    }
    await ports.sync();
    return written;
  }

  #tell(written: VmRecord): void {
    const { events, now } = this.#options;
    const when = written.next === undefined ? "" : ", in force from the next start";
    const message = `configuration version ${written.configVersion}${when}`;
    events.publish(vmEvent("VM_UPDATED", written, { now: now(), message }));
  }

  #resolve(record: VmRecord, before: VmSpec, patch: VmConfigPatch): VmSpec {
    const { store, managed, antiSpoof } = this.#options;
    const { name } = before;
    const where = `VM "${name}"`;
    const given = givenFields(patch);
    const config = mergeConfig(before.config, patch);
    const spec = resolveConfig(name, config, { manifest: this.#manifestFor(given, before), managed, antiSpoof });
    const { ip_address: ip, mac_address: mac } = given;
    if (mac !== undefined && mac.toLowerCase() !== record.mac) {
      throw new VolantError("invalid", `${where}: its MAC is ${record.mac} for life: another one is for another VM`);
    }
    const chosen = ip === undefined ? {} : { ip_address: ip };
    checkChosenAddresses(where, chosen, { mode: spec.mode, pool: managed.pool, installation: store.installation });
    return spec;
  }

  #manifestFor(given: ReturnType<typeof givenFields>, before: VmSpec): Manifest {
    if (given.manifest !== undefined) return given.manifest;
    if (given.plugin === undefined) return before.manifest;
    return usablePlugin(given.plugin, this.#options.store.findPlugin(given.plugin)).manifest;
  }

  /** Only where the patch changes it: a bridge that is gone for now is no reason against more memory. */
  async #checkNetwork(record: VmRecord, before: VmSpec, spec: VmSpec): Promise<void> {
    const { network } = this.#options;
    const same =
      before.mode === spec.mode &&
      before.tap === spec.tap &&
      before.bridge === spec.bridge &&
      before.antiSpoof === spec.antiSpoof;
    if (same || !needsTapDevice(spec)) return;
    const [name] = network.tapNames(spec.name);
    const tap = spec.tap ?? record.tap ?? name;
    if (tap !== undefined) await network.checkReady(tap, spec.bridge, spec.antiSpoof !== false);
  }

  #find(name: string): VmRecord {
    return findVm(this.#options.store, name);
  }

  #state(record: VmRecord): VmConfigState {
    const [latest] = this.#options.store.configHistory(record.id, 1);
    if (latest === undefined) throw new Error(`VM ${record.id} has no configuration`);
    const { version, updatedAt, config } = latest;
    return { version, updated_at: updatedAt, config, pending: record.next !== undefined };
  }
}
