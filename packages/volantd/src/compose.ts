/** Builds every object once, and takes them down in the reverse order. Nothing else sees all of them. */
import { randomBytes } from "node:crypto";
import { accessSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { findUpstreamNameservers, LinuxHost, restoreNetwork } from "@volant/host";
import { startApi } from "./api/server.ts";
import type { Config } from "./config.ts";
import { Engine } from "./engine/engine.ts";
import { EventHub } from "./engine/event-hub.ts";
import { PluginService } from "./engine/plugin-service.ts";
import { reportHost } from "./engine/host-report.ts";
import { ReachService } from "./engine/reach-service.ts";
import { SystemService } from "./engine/system-service.ts";
import { VmService } from "./engine/vm-service.ts";
import { WorkloadLogs } from "./engine/workload-logs.ts";
import { GuestLink } from "./guest/link.ts";
import { FileImageStore } from "./image/image-store.ts";
import type { Log } from "./log.ts";
import { formatAddress } from "./model/address.ts";
import type { NetworkManager } from "./network/network-manager.ts";
import { NoopManager } from "./network/noop-manager.ts";
import { QemuRuntime } from "./runtime/qemu/qemu-runtime.ts";
import { SqliteStore } from "./store/sqlite-store.ts";

/** Where the agent's build leaves it, from this file; a release has it beside the programs. */
const AGENT_PATH = join(import.meta.dirname, "../../../kestrel/target/x86_64-unknown-linux-gnu/release/kestrel");

/** Ten numbers for each millisecond of the clock: an id is above all that earlier runs gave out, and has at most 15 digits until the year 2286. */
const EVENT_IDS_PER_MS = 10;

export interface Volantd {
  /** Base URL of the API. */
  readonly address: string;
  /** Leaves VMs running. */
  close(): Promise<void>;
}

/** netlink, and the FFI behind it, are loaded only where they are used: never off Linux. */
async function openNetwork(config: Config, installation: string, early: Pick<Log, "warn">): Promise<NetworkManager> {
  const { bridge, pool } = config.managed;
  if ((config.network ?? (process.platform === "linux" ? "bridge" : "noop")) === "noop") {
    early.warn({}, "volantd manages no network here: taps must be made by hand");
    return new NoopManager();
  }
  const [{ Netlink }, { BridgeManager }] = await Promise.all([
    import("@volant/netlink"),
    import("./network/bridge-manager.ts"),
  ]);
  const host = new LinuxHost(config.workDir);
  return new BridgeManager({
    netlink: await Netlink.open(),
    installation,
    bridge,
    hostAddress: formatAddress(pool.gateway),
    restore: async () => (await restoreNetwork(host)).restored,
  });
}

type NeededFile = readonly [path: string, remedy: string];

const AGENT: NeededFile = [AGENT_PATH, "build the guest agent: cargo build --release --locked, in kestrel/"];

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

function openGuest(runtime: QemuRuntime): ConstructorParameters<typeof Engine>[0]["openGuest"] {
  return ({ vmId, generation, identity }) => {
    const { control, stream } = runtime.sockets(vmId);
    return GuestLink.open({
      controlPath: control,
      streamPath: stream,
      identity,
      generation,
      now: () => new Date(),
      randomNonce: () => randomBytes(16).toString("hex"),
    });
  };
}

/**
 * Opens everything and serves. The API answers only after running VMs were found again.
 *
 * @throws VolantError with one sentence for whoever starts volantd; what was opened is closed again
 */
export async function openVolantd(config: Config, log: Log): Promise<Volantd> {
  const cleanup = new Cleanup();
  // What is said before the start has succeeded would stand above the one sentence of a start that fails.
  const early: (() => void)[] = [];
  const quiet = {
    info: (fields: object, message: string) => void early.push(() => log.info(fields, message)),
    warn: (fields: object, message: string) => void early.push(() => log.warn(fields, message)),
  };
  try {
    const opened = await open(config, log, quiet, cleanup);
    for (const say of early) say();
    return { address: opened, close: () => cleanup.run(log) };
  } catch (error) {
    await cleanup.run(log);
    throw error;
  }
}

async function open(config: Config, log: Log, early: Pick<Log, "info" | "warn">, cleanup: Cleanup): Promise<string> {
  const { managed } = config;
  const now = () => new Date();
  const store = SqliteStore.open({ path: config.dbPath, now, newInstallation: () => randomBytes(4).toString("hex") });
  cleanup.add(() => store.close());
  const { installation } = store;

  const { hypervisor, runtimeDir, logDir, workDir } = config;
  const runtime = await QemuRuntime.open({ installation, runtimeDir, logDir, hypervisor, log: early });
  cleanup.add(() => runtime.close());

  const network = await openNetwork(config, installation, early);
  cleanup.add(() => network.close());
  const checked = !(network instanceof NoopManager);
  // Where the host is checked as a whole, that tells of a missing kernel.
  const kernel: NeededFile = [config.bzImagePath, "run volar kernel install"];
  for (const warning of missingFiles(checked ? [AGENT] : [AGENT, kernel])) early.warn({}, warning);

  await mkdir(workDir, { recursive: true, mode: 0o755 });
  const images = await FileImageStore.open({
    workDir,
    agentPath: AGENT_PATH,
    bzImagePath: config.bzImagePath,
    vmlinuxPath: config.vmlinuxPath,
    transport: runtime.info.machine === "microvm" ? "mmio" : "pci",
  });
  const events = new EventHub(now().getTime() * EVENT_IDS_PER_MS);
  const logs = new WorkloadLogs(logDir, (error) => log.warn({ error }, "a workload's log can't be written"));
  cleanup.add(() => logs.flush());

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
    nameservers: async () => config.nameservers ?? (await findUpstreamNameservers()),
    monotonicMs: () => performance.now(),
  });
  const plugins = new PluginService({ store, images, managed, log, now });
  const vms = new VmService({ store, engine, runtime, network, images, events, managed, now });
  const reach = new ReachService({ store, engine });
  const system = new SystemService({
    store,
    hypervisor: runtime.info,
    managed,
    listen: `${config.listenHost.includes(":") ? `[${config.listenHost}]` : config.listenHost}:${config.listenPort}`,
    advertise: config.advertise ?? "",
  });
  await plugins.prune();
  cleanup.add(() => engine.close());
  await engine.start();
  if (checked) await reportHost({ config, store, log: early });
  const api = await startApi({ useCases: { vms, reach, plugins, images: plugins, system, events }, config, log });
  cleanup.add(() => api.close());
  return api.address;
}
