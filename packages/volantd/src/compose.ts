/** Builds every object once, and takes them down in the reverse order. Nothing else sees all of them. */
import { randomBytes } from "node:crypto";
import { accessSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { findUpstreamNameservers, inspectSetup, LinuxHost, PciSysfs, restoreNetwork } from "@volant/host";
import { agentPath, confinerPath } from "@volant/host/installation";
import { DEFAULT_MAX_CONNECTIONS } from "./api/api-config.ts";
import { startApi } from "./api/server.ts";
import { AuditLog } from "./audit/audit-log.ts";
import { checkKeys, type Config } from "./config.ts";
import { ArtifactService } from "./engine/artifact-service.ts";
import { ConfigService } from "./engine/config-service.ts";
import { ConsoleService } from "./engine/console-service.ts";
import { ConsoleLogService } from "./engine/console-log-service.ts";
import { DeploymentKeeper } from "./engine/deployment-keeper.ts";
import { DeploymentService } from "./engine/deployment-service.ts";
import { Engine } from "./engine/engine.ts";
import { EventHub } from "./engine/event-hub.ts";
import { KeyService } from "./engine/key-service.ts";
import { LogService } from "./engine/log-service.ts";
import { PluginService } from "./engine/plugin-service.ts";
import { PortKeeper } from "./engine/port-keeper.ts";
import { Readiness } from "./engine/readiness.ts";
import { reportHost } from "./engine/host-report.ts";
import { ReachService } from "./engine/reach-service.ts";
import { ReplicaExecutor } from "./engine/replica-executor.ts";
import { SystemService } from "./engine/system-service.ts";
import { VfioService } from "./engine/vfio-service.ts";
import { UsageService } from "./engine/usage-service.ts";
import { VmService } from "./engine/vm-service.ts";
import { WorkloadService } from "./engine/workload-service.ts";
import { WorkloadLogs } from "./engine/workload-logs.ts";
import { SharedSerials } from "./guest/shared-serial.ts";
import { GuestLink } from "./guest/link.ts";
import { Pulse } from "./guest/pulse.ts";
import { keepMemoryLow } from "./memory/keep-memory-low.ts";
import { FileImageStore } from "./image/image-store.ts";
import type { Log } from "./log.ts";
import { formatAddress } from "./model/address.ts";
import { LanBridges } from "./network/lan-bridges.ts";
import type { NetworkManager } from "./network/network-manager.ts";
import { NoopManager } from "./network/noop-manager.ts";
import { GuestConnections } from "./publish/guest-connections.ts";
import { listenOn } from "./publish/listen.ts";
import { RESTART_TIMES } from "./plan/restart.ts";
import { brakeWithoutDescriptors } from "./runtime/descriptor-brake.ts";
import { readLinkTraffic, readProcessUsage } from "./runtime/process-usage.ts";
import { fewDescriptors, readDescriptors } from "./runtime/descriptors.ts";
import { QemuRuntime } from "./runtime/qemu/qemu-runtime.ts";
import { SqliteStore } from "./store/sqlite-store.ts";
import { sharedFor } from "./shared-answer.ts";
import { openTelemetry } from "./telemetry/open-telemetry.ts";

const AGENT_PATH = agentPath();
const CONFINER_PATH = confinerPath();
/** Dozens of VMs that are made in one go; nobody installs another kernel and makes a VM of it in that time. */
const LOOKED_FOR_MS = 50;

/** Seeing how a VM ended takes milliseconds; of a thousand that a reboot has ended, seconds. */
const ENDS_SEEN_WITHIN_MS = 15_000;

/** Guests that start together are told of the same name servers. */
const NAMESERVERS_FRESH_MS = 1000;

export interface Volantd {
  /** Base URL of the API. */
  readonly address: string;
  /** Leaves VMs running. */
  close(): Promise<void>;
}

/** netlink, and the FFI behind it, are loaded only where they are used: never off Linux. */
async function openNetwork(
  config: Config,
  installation: string,
  log: Pick<Log, "info" | "warn">,
  early: Pick<Log, "warn">,
): Promise<NetworkManager> {
  const { bridge, pool } = config.managed;
  if ((config.network ?? (process.platform === "linux" ? "bridge" : "noop")) === "noop") {
    early.warn({}, "volantd manages no network here: taps must be made by hand");
    return new NoopManager();
  }
  const [{ Netlink }, { BridgeManager }, { PolicyKeeper }, { placeLimits }] = await Promise.all([
    import("@volant/netlink"),
    import("./network/bridge-manager.ts"),
    import("./network/policy-keeper.ts"),
    import("./network/tap-places.ts"),
  ]);
  const host = new LinuxHost(config.workDir);
  const netlink = await Netlink.open();
  return new BridgeManager({
    netlink,
    policy: new PolicyKeeper({ netlink, installation, onSlow: (reason) => log.info({}, reason) }),
    installation,
    bridge,
    hostAddress: formatAddress(pool.gateway),
    lans: new LanBridges({
      named: config.lanBridges,
      readRecord: () => host.readRecord(),
      recordStamp: () => host.recordStamp(),
    }),
    restore: async () => (await restoreNetwork(host)).restored,
    inspect: () => inspectSetup(host),
    warn: (fields, message) => log.warn(fields, message),
    ...(config.bridgePorts === undefined ? {} : { limits: placeLimits(config.bridgePorts) }),
  });
}

type NeededFile = readonly [path: string, remedy: string];

const OWN_PROGRAMS: readonly NeededFile[] = [
  [AGENT_PATH, "build the guest agent: cargo build --release --locked, in kestrel/"],
  [CONFINER_PATH, "build it: cargo build --release --locked, in kestrel/"],
];

function missingFiles(files: readonly NeededFile[]): string[] {
  return files.flatMap(([path, remedy]) => {
    try {
      accessSync(path);
      return [];
    } catch {
      return [`${path} is missing: ${remedy}`];
    }
  });
}

/** Actions that undo what was opened, newest last. */
class Cleanup {
  readonly #actions: (() => unknown)[] = [];

  add(action: () => unknown): void {
    this.#actions.push(action);
  }

  async run(log: Log): Promise<void> {
    for (const action of this.#actions.splice(0).reverse()) {
      try {
        await action();
      } catch (error) {
        log.error({ error }, "something could not be closed");
      }
    }
  }
}

/** Clients are to have no more than a quarter of the files that this process may have open. */
function maxConnections(descriptorLimit = Number.POSITIVE_INFINITY): number {
  return Math.max(64, Math.min(DEFAULT_MAX_CONNECTIONS, Math.floor(descriptorLimit / 4)));
}

function openGuest(runtime: QemuRuntime): ConstructorParameters<typeof Engine>[0]["openGuest"] {
  const pulse = new Pulse();
  const now = (): Date => new Date();
  const randomNonce = (): string => randomBytes(16).toString("hex");
  return ({ vmId, generation, identity }) => {
    const { control, stream } = runtime.sockets(vmId);
    const data = runtime.dataTransport(vmId, generation);
    return GuestLink.open({
      controlPath: control,
      streamPath: stream,
      identity,
      generation,
      data,
      pulse,
      now,
      randomNonce,
    });
  };
}

/**
 * Opens everything and serves. The API answers once running VMs were found again; their agents are attached meanwhile.
 *
 * @throws VolantError with one sentence for whoever starts volantd; what was opened is closed again
 */
export async function openVolantd(config: Config, log: Log): Promise<Volantd> {
  const cleanup = new Cleanup();
  // What is said before the start has succeeded would stand above the one sentence of a start that fails.
  let early: (() => void)[] | undefined = [];
  const tell = (say: () => void): void => (early === undefined ? say() : void early.push(say));
  const quiet = {
    info: (fields: object, message: string) => tell(() => log.info(fields, message)),
    warn: (fields: object, message: string) => tell(() => log.warn(fields, message)),
  };
  try {
    const opened = await open(config, log, quiet, cleanup);
    for (const say of early) say();
    early = undefined;
    return { address: opened, close: () => cleanup.run(log) };
  } catch (error) {
    await cleanup.run(log);
    throw error;
  }
}

async function open(config: Config, log: Log, early: Pick<Log, "info" | "warn">, cleanup: Cleanup): Promise<string> {
  const { managed } = config;
  const now = () => new Date();
  const monotonicMs = () => performance.now();
  const store = SqliteStore.open({
    path: config.dbPath,
    now,
    newInstallation: () => randomBytes(4).toString("hex"),
    onSyncFailure: (error) => log.error({ error }, "the database can't be made safe on its disk"),
    eventsKept: config.eventsKept,
  });
  cleanup.add(() => store.close());
  const { installation } = store;
  const keys = new KeyService({
    keys: store.keys,
    now,
    onError: (error) => log.warn({ error }, "the use of an API key can't be written down"),
  });
  checkKeys(config, keys.count);

  const { hypervisor, runtimeDir, logDir, workDir } = config;
  const runtime = await QemuRuntime.open({
    installation,
    runtimeDir,
    logDir,
    hypervisor,
    confiner: CONFINER_PATH,
    vsock: config.vsock,
    log: early,
  });
  cleanup.add(() => runtime.close());
  const descriptors = readDescriptors();
  const few = descriptors === undefined ? undefined : fewDescriptors(descriptors);
  if (few !== undefined) early.warn({}, few);

  const network = await openNetwork(config, installation, log, early);
  cleanup.add(() => network.close());
  const checked = !(network instanceof NoopManager);
  // Where the host is checked as a whole, that tells of a missing kernel.
  const kernel: NeededFile = [config.bzImagePath, "run volar kernel install"];
  for (const warning of missingFiles(checked ? OWN_PROGRAMS : [...OWN_PROGRAMS, kernel])) early.warn({}, warning);

  await mkdir(workDir, { recursive: true, mode: 0o755 });
  const images = await FileImageStore.open({
    workDir,
    agentPath: AGENT_PATH,
    lookedForMs: LOOKED_FOR_MS,
    bzImagePath: config.bzImagePath,
    vmlinuxPath: config.vmlinuxPath,
    transport: runtime.info.machine === "microvm" ? "mmio" : "pci",
    vsock: runtime.info.data.transport === "vsock",
  });
  if (checked) cleanup.add(keepMemoryLow());
  const events = new EventHub(store);
  const onLogError = (error: unknown) => log.warn({ error }, "a workload's log can't be written");
  const logs = new WorkloadLogs(logDir, onLogError, config.logFileBytes);
  cleanup.add(() => logs.flush());

  const { telemetry, metrics } = openTelemetry({
    store,
    network,
    pool: managed.pool,
    usage: () => usage.read(),
    traces: config.traces,
    log,
    cleanup,
  });
  const upstreamNameservers = sharedFor(NAMESERVERS_FRESH_MS, findUpstreamNameservers);
  const engine = new Engine({
    store,
    runtime,
    network,
    images,
    events,
    logs,
    log,
    now,
    pool: managed.pool,
    openGuest: openGuest(runtime),
    nameservers: async () => config.nameservers ?? (await upstreamNameservers()),
    monotonicMs,
    busyMs: () => {
      const { user, system } = process.threadCpuUsage();
      return (user + system) / 1000;
    },
    telemetry,
    onPass: (vmId) => keeper.vmChanged(vmId),
    ...(config.startTimeoutMs === undefined ? {} : { startTimeoutMs: config.startTimeoutMs }),
    ...(config.hangTimeoutMs === undefined ? {} : { hangTimeoutMs: config.hangTimeoutMs }),
    ...(config.restartResetMs === undefined
      ? {}
      : { restartTimes: { ...RESTART_TIMES, steadyMs: config.restartResetMs } }),
    stopTimeoutMs: config.stopTimeoutMs,
  });
  const serials = new SharedSerials();
  cleanup.add(() => serials.close());
  const plugins = new PluginService({ store, images, managed, log, monotonicMs });
  const reach = new ReachService({ store, engine, monotonicMs });
  const connections = new GuestConnections((vmId, port, signal) => reach.dial(vmId, port, signal));
  const ports = new PortKeeper({
    store,
    events,
    log,
    now,
    monotonicMs,
    listen: (port, target) => listenOn(port, (socket) => void connections.serve(socket, target())),
  });
  const { antiSpoof, stopTimeoutMs } = config;
  const vms = new VmService({
    store,
    engine,
    runtime,
    network,
    images,
    events,
    ports,
    managed,
    now,
    antiSpoof,
    stopTimeoutMs,
  });
  const configs = new ConfigService({ store, engine, network, images, events, ports, managed, now, antiSpoof });
  const executor = new ReplicaExecutor({ store, engine, network, ports, events, managed, now });
  const keeper = new DeploymentKeeper({ store, engine, executor, events, log, now, monotonicMs });
  const deployments = new DeploymentService({ store, keeper, network, images, events, managed, now, antiSpoof });
  const system = new SystemService({
    store,
    hypervisor: runtime.info,
    managed,
    manages: network.manages,
    listen: `${config.listenHost.includes(":") ? `[${config.listenHost}]` : config.listenHost}:${config.listenPort}`,
    advertise: config.advertise ?? "",
  });
  const usage = new UsageService({
    store,
    processOf: (vmId) => engine.lane(vmId)?.process,
    readProcess: readProcessUsage,
    readTraffic: readLinkTraffic,
    now,
    monotonicMs,
  });
  await plugins.prune();
  cleanup.add(() => engine.close());
  await engine.adopt();
  cleanup.add(() => ports.close());
  await ports.sync();
  // Nobody is to be told that a VM runs which is not there.
  await engine.endsSeen(ENDS_SEEN_WITHIN_MS);
  const brake = brakeWithoutDescriptors({ warn: (message) => log.warn({}, message) });
  cleanup.add(() => brake.close());
  const audit = new AuditLog({
    path: join(logDir, "audit.jsonl"),
    maxFileBytes: config.auditFileBytes,
    now,
    onError: (error) => log.warn({ error }, "the audit log can't be written"),
  });
  cleanup.add(() => audit.flush());
  const api = await startApi({
    audit,
    useCases: {
      keys,
      durability: store,
      backups: store,
      vms,
      configs,
      deployments,
      reach,
      workloads: new WorkloadService({ store, reach }),
      consoles: new ConsoleService({ store, runtime, serials }),
      files: reach,
      logs: new LogService({ store, logs }),
      consoleLogs: new ConsoleLogService({ store, runtime }),
      plugins,
      artifacts: new ArtifactService({ store, images, prune: () => plugins.prune() }),
      images: plugins,
      system,
      readiness: new Readiness(store, engine),
      metrics,
      vfio: new VfioService(new PciSysfs()),
      usage,
      events,
    },
    telemetry,
    config: { ...config, maxConnections: maxConnections(descriptors?.limit) },
    log,
  });
  cleanup.add(() => api.close());
  // Whoever asks is answered from here on: with many VMs, what follows takes longer than all before it.
  engine.begin();
  cleanup.add(() => keeper.close());
  keeper.start();
  if (checked) void reportHost({ config, store, data: runtime.info.data, log });
  return api.address;
}
