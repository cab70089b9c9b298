/** The engine on a host in memory, with a real store: for tests of the engine and of the use cases on it. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { VolantError, type CreateVmRequest, type Manifest, type VmEvent } from "@volant/contract";
import { parseSubnet, type AddressPool } from "../model/address.ts";
import type { RestartTimes } from "../plan/restart.ts";
import { SqliteStore } from "../store/sqlite-store.ts";
import { Life, MemoryGuest, MemoryHost, MemoryImages, MemoryNetwork, MemoryRuntime } from "./memory-host.ts";
import { ConfigService } from "../engine/config-service.ts";
import { DeploymentKeeper } from "../engine/deployment-keeper.ts";
import { DeploymentService } from "../engine/deployment-service.ts";
import { Engine } from "../engine/engine.ts";
import { EventHub } from "../engine/event-hub.ts";
import { PortKeeper } from "../engine/port-keeper.ts";
import { ReplicaExecutor } from "../engine/replica-executor.ts";
import { VmService } from "../engine/vm-service.ts";
import { WorkloadLogs } from "../engine/workload-logs.ts";

const directory = mkdtempSync(join(tmpdir(), "engine-"));
after(() => rmSync(directory, { recursive: true, force: true }));

export const manifest: Manifest = {
  name: "hello",
  version: "1",
  resources: { cpu_cores: 1, memory_mb: 128 },
  workload: { base_url: "http://127.0.0.1:80", entrypoint: ["/bin/hello"] },
  initramfs: { url: "file:///hello", checksum: `sha256:${"a".repeat(64)}` },
  health_check: { endpoint: "/" },
};
export const managed = { bridge: "vbr0", pool: { subnet: parseSubnet("10.0.0.0/24"), gateway: 0x0a000001 } };
let files = 0;

export interface Running {
  readonly engine: Engine;
  readonly vms: VmService;
  readonly configs: ConfigService;
  readonly deployments: DeploymentService;
  readonly keeper: DeploymentKeeper;
  readonly executor: ReplicaExecutor;
  readonly life: Life;
  readonly events: VmEvent[];
  readonly hub: EventHub;
}

/** One host and one store, with one engine after the other. */
export class Bench {
  readonly host = new MemoryHost();
  readonly store: SqliteStore;
  readonly failures: string[] = [];
  /** How soon the engines start VMs again that ended. */
  restartTimes: RestartTimes | undefined;
  readonly logDirectory = join(directory, `logs-${files}`);

  /** @param sync makes the store's log durable; absent: as in production */
  constructor(sync?: () => Promise<void>) {
    this.store = SqliteStore.open({
      path: join(directory, `${files++}.db`),
      now: () => new Date(),
      newInstallation: () => "abcdef01",
      restMs: 0,
      ...(sync === undefined ? {} : { sync }),
    });
    this.host.withVsock = true;
    this.store.createPlugin(manifest, true);
  }

  /** @param given what of the settings differs */
  async open(
    effects?: number,
    given: {
      readonly pool?: AddressPool;
      readonly startTimeoutMs?: number;
      readonly hangTimeoutMs?: number;
      /** At how many VMs' steps the engine works at a time. */
      readonly parallel?: number;
      readonly adoptOnly?: true;
    } = {},
  ): Promise<Running> {
    const { pool = managed.pool, adoptOnly, ...limits } = given;
    const pooled = { bridge: managed.bridge, pool };
    const life = new Life(effects);
    const { host, store } = this;
    const runtime = new MemoryRuntime(host, life);
    const network = new MemoryNetwork(host, life);
    const hub = new EventHub(this.store);
    const events: VmEvent[] = [];
    const record = hub.publish.bind(hub);
    hub.publish = (event) => {
      events.push(event);
      record(event);
    };
    const now = () => new Date();
    const images = new MemoryImages();
    const engine = new Engine({
      store,
      runtime,
      network,
      images,
      now,
      events: hub,
      logs: new WorkloadLogs(this.logDirectory, () => {}),
      log: {
        info: () => {},
        warn: () => {},
        error: (fields, message) => this.failures.push(`${message}: ${String(fields["error"])}`),
      },
      restartTimes: this.restartTimes,
      ...limits,
      pool,
      openGuest: (options) => new MemoryGuest(host, options),
      nameservers: async () => [],
      monotonicMs: () => performance.now(),
      lookEveryMs: 60_000,
      onPass: (vmId) => {
        if (!life.ended) keeper.vmChanged(vmId);
      },
    });
    const ports = new PortKeeper({
      store,
      events: hub,
      now,
      log: { info: () => {}, warn: () => {}, error: (_fields, message) => this.failures.push(message) },
      monotonicMs: () => performance.now(),
      listen: async ({ address, hostPort }) => {
        const endpoint = `${address}:${hostPort}`;
        if (host.listening.has(endpoint)) throw new VolantError("in_use", `port ${endpoint} is in use`);
        host.listening.add(endpoint);
        return { close: () => void host.listening.delete(endpoint) };
      },
    });
    const vms = new VmService({ store, engine, runtime, network, images, events: hub, ports, managed: pooled, now });
    const configs = new ConfigService({ store, engine, network, images, events: hub, ports, managed: pooled, now });
    const executor = new ReplicaExecutor({ store, engine, network, ports, events: hub, managed: pooled, now });
    const keeper = new DeploymentKeeper({
      store,
      engine,
      executor,
      events: hub,
      now,
      log: {
        info: () => {},
        warn: () => {},
        error: (fields, message) => this.failures.push(`${message}: ${String(fields["error"])}`),
      },
      monotonicMs: () => performance.now(),
      lookEveryMs: 60_000,
    });
    const deployments = new DeploymentService({ store, keeper, network, images, events: hub, managed: pooled, now });
    const started = engine.adopt().then(() => (adoptOnly === true ? undefined : engine.begin()));
    // A life of few effects may end before the start does, which is then waited for no longer.
    await (effects === undefined
      ? started
      : Promise.race([started, new Promise((resolve) => setTimeout(resolve, 50))]));
    keeper.start();
    return { engine, vms, configs, deployments, keeper, executor, life, events, hub };
  }

  /** Waits until nothing is left to do for any VM. */
  async settle({ engine }: Running): Promise<void> {
    for (const id of this.store.vmIds()) {
      await engine.until(
        id,
        (lane) => {
          const vm = this.store.getVm(id);
          return vm === undefined || (lane.settled && vm.status !== "pending" && vm.status !== "starting");
        },
        10_000,
        `VM ${id} does not settle: ${JSON.stringify(this.store.getVm(id))}`,
      );
    }
    while (this.host.processes.size > 0 && this.#orphans().length > 0) await new Promise(setImmediate);
  }

  #orphans(): unknown[] {
    return [...this.host.processes.values()].filter(({ vmId }) => this.store.getVm(vmId) === undefined);
  }

  /** The host holds exactly what the store wants: no VM without its parts, no part without its VM. */
  assertAgreement(): void {
    const running = this.store.vmIds().flatMap((id) => {
      const vm = this.store.getVm(id);
      assert.ok(vm !== undefined && vm.desired !== "absent", "a deleted VM has no row");
      const up = vm.desired === "running" && vm.endedGeneration !== vm.generation;
      assert.equal(vm.status, up ? "running" : vm.desired === "stopped" ? "stopped" : vm.endedStatus);
      return up ? [vm] : [];
    });
    const sorted = (values: Iterable<unknown>): unknown[] => [...values].map(String).sort();
    const { host } = this;
    const processes = [...host.processes.values()].map(({ vmId, generation }) => `${vmId}:${generation}`);
    assert.deepEqual(sorted(processes), sorted(running.map(({ id, generation }) => `${id}:${generation}`)));
    const backends = [...host.backends.values()].map(({ vmId, generation }) => `${vmId}:${generation}`);
    assert.deepEqual(sorted(backends), sorted(processes));
    const taps = [...host.taps.values()].map(({ vmId, name, owner }) => `${vmId} ${name} ${owner}`);
    const tapped = running.filter(({ tap }) => tap !== undefined);
    assert.deepEqual(sorted(taps), sorted(tapped.map(({ id, tap }) => `${id} ${tap} ${1_900_000_000 + id}`)));
    const neighbours = [...host.neighbours].map(([address, mac]) => `${address} ${mac}`);
    const leased = running.filter(({ address }) => address !== undefined);
    assert.deepEqual(sorted(neighbours), sorted(leased.map(({ address, mac }) => `${address} ${mac}`)));
    assert.deepEqual(sorted(host.folders), sorted(running.map(({ id }) => id)));
    assert.deepEqual(this.failures, []);
  }
}

export const request = (name: string): CreateVmRequest => ({ name, plugin: "hello" });
