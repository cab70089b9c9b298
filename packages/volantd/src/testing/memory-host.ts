/**
 * Stand-ins for the host that the engine works on: processes, links and guests in memory. They outlive an engine, as the real ones do, and can be told
 * to leave one in the middle of a call, as a killed volantd would be.
 */
import { EventEmitter } from "node:events";
import { VolantError } from "@volant/contract";
import { PassThrough, Readable, type Duplex } from "node:stream";
import type { GuestPort, GuestPortOptions } from "../engine/guest-session.ts";
import type { GuestNetworkStatus, GuestStatus } from "../guest/guest-status.ts";
import type { AgentInfo } from "../guest/control-lines.ts";
import type { GuestLogEntry } from "../guest/log-entry.ts";
import type { BootImage, ImageStore } from "../image/image.ts";
import { tapNames } from "../model/tap-name.ts";
import type {
  BridgeNeighbour,
  MarkedTap,
  NetworkManager,
  NetworkView,
  TapRequest,
} from "../network/network-manager.ts";
import type { BridgeState, ObservedTap } from "../plan/observed.ts";
import { asSeen, type VmPolicy } from "../plan/policy.ts";
import type { ExitReport, HypervisorProcess, LaunchSpec, Runtime } from "../runtime/runtime.ts";

/** What the kernel would hold. */
export class MemoryHost {
  readonly processes = new Map<number, HypervisorProcess>();
  /** What serves vsock devices; made with each hypervisor when there is a need of them. */
  readonly backends = new Map<number, HypervisorProcess>();
  withVsock = false;
  readonly taps = new Map<number, MarkedTap>();
  readonly neighbours = new Map<number, string>();
  readonly folders = new Set<number>();
  readonly foreignNames = new Set(["eth0"]);
  bridge: "up" | "down" | "missing" = "up";
  /** Whether DHCP servers gave guests what those say they were given. */
  leasesAreTrue = true;
  /** What guests' taps let through. */
  readonly policies = new Map<number, VmPolicy>();
  readonly otherBridges = new Map<string, BridgeState>();
  /** What guests say of their network; they say it again when {@link MemoryHost.guestNews} emits "network". */
  guestNetwork: GuestNetworkStatus = { applied: true };
  /** Whether the workload of a VM's guest is well; it says so again when {@link MemoryHost.guestNews} emits "network". */
  isWell: (vmId: number) => boolean = () => true;
  readonly guestNews = new EventEmitter().setMaxListeners(0);
  /** Ports that are listened on. */
  readonly listening = new Set<string>();
  addressed = true;
  /** What a complete set-up recorded can be put back. */
  recorded = false;
  /** Errors that the next attempts to put the host back meet, in order. */
  readonly restoreErrors: Error[] = [];
  /** Emits "exit" with a pid. */
  readonly exits = new EventEmitter().setMaxListeners(0);
  nextId = 100;
  /** How processes ended, for reports. */
  readonly ends = new Map<number, string>();
  /** The next launches fail with these errors, in order. */
  readonly launchErrors: Error[] = [];
  /** Ids of VMs whose processors stand still. */
  readonly paused = new Set<number>();
  /** How often the network was looked at. */
  looks = 0;
  /** How guests' workloads are. */
  health: GuestStatus["health"] = { state: "healthy" };

  end(pid: number, cause: string): void {
    const process = this.processes.get(pid);
    if (process === undefined) return;
    this.processes.delete(pid);
    this.ends.set(process.vmId, cause);
    this.exits.emit("exit", pid);
  }
}

/**
 * The life of one engine. Each call to the host passes through {@link effect}; once the life has ended, no call comes back, so that the engine is as
 * dead as a killed one, at that call and no other.
 */
export class Life {
  #left: number;
  #dead = false;

  /** @param effects how many calls are answered before the engine is cut off; the one that is not may have had its effect */
  constructor(effects = Number.POSITIVE_INFINITY) {
    this.#left = effects;
  }

  end(): void {
    this.#dead = true;
  }

  get ended(): boolean {
    return this.#dead;
  }

  async effect<T>(work: () => T, isChange = true): Promise<T> {
    await new Promise(setImmediate);
    if (this.#dead) return new Promise<never>(() => {});
    const result = work();
    if (isChange) this.#left -= 1;
    if (this.#left < 0) this.#dead = true;
    // Done, but the engine is never told.
    return this.#dead ? new Promise<never>(() => {}) : result;
  }
}

export class MemoryNetwork implements NetworkManager {
  readonly manages = true;
  readonly #host: MemoryHost;
  readonly #life: Life;

  constructor(host: MemoryHost, life: Life) {
    this.#host = host;
    this.#life = life;
  }

  tapNames(vmName: string): Iterable<string> {
    return tapNames(vmName);
  }

  async checkReady(): Promise<void> {
    if (this.#host.bridge === "missing") throw new VolantError("not_ready", "bridge vbr0 does not exist");
  }

  async linkWithMac(mac: string): Promise<string | undefined> {
    return mac === "02:00:00:00:00:fe" ? "vbr0" : undefined;
  }

  observe(): Promise<NetworkView> {
    const { bridge, addressed, taps, neighbours, foreignNames } = this.#host;
    this.#host.looks += 1;
    return this.#life.effect(
      () => ({
        network: { managed: true, bridge, bridgeName: "vbr0", addressed },
        otherBridges: this.#host.otherBridges,
        taps: [...taps.values()],
        foreignNames: new Map([...foreignNames].map((name) => [name, undefined])),
        neighbours: [...neighbours].map(([address, mac]) => ({ address, mac })),
        policy: {
          usable: true,
          intact: true,
          entries: new Map([...this.#host.policies].map(([id, policy]) => [id, asSeen(policy)])),
        },
      }),
      false,
    );
  }

  bringBridgeUp(): Promise<void> {
    return this.#life.effect(() => void (this.#host.bridge = "up"));
  }

  restoreHost(): Promise<readonly string[]> {
    return this.#life.effect(() => {
      const error = this.#host.restoreErrors.shift();
      if (error !== undefined) throw error;
      if (!this.#host.recorded || (this.#host.bridge === "up" && this.#host.addressed)) return [];
      this.#host.bridge = "up";
      this.#host.addressed = true;
      return ["bridge vbr0"];
    }, false);
  }

  createTap({ vmId, name, uid, bridge = "vbr0", guarded = false }: TapRequest): Promise<void> {
    return this.#life.effect(() => {
      const taken = this.#host.foreignNames.has(name) || [...this.#host.taps.values()].some((tap) => tap.name === name);
      if (taken) throw new VolantError("exists", `a link named ${name} exists already`);
      if (!this.#host.policies.has(vmId)) throw new Error(`the tap of VM ${vmId} came before its policy`);
      const index = this.#host.nextId++;
      this.#host.taps.set(index, { vmId, index, name, up: true, bridge, usable: true, guarded, owner: uid });
    });
  }

  repairTap(tap: Pick<ObservedTap, "index">, bridge = "vbr0", guarded = false): Promise<void> {
    return this.#life.effect(() => {
      const found = this.#host.taps.get(tap.index);
      if (found !== undefined) this.#host.taps.set(tap.index, { ...found, up: true, bridge, guarded });
    });
  }

  deleteTap(tap: ObservedTap): Promise<void> {
    return this.#life.effect(() => void this.#host.taps.delete(tap.index));
  }

  putPolicy(policy: VmPolicy): Promise<void> {
    return this.#life.effect(() => void this.#host.policies.set(policy.vmId, policy));
  }

  removePolicy(vmId: number): Promise<void> {
    return this.#life.effect(() => {
      if ([...this.#host.taps.values()].some((tap) => tap.vmId === vmId)) throw new Error("a tap was let go of");
      this.#host.policies.delete(vmId);
    });
  }

  followLease(): void {}

  /** Servers give what guests say they were given. */
  lease() {
    const { address } = this.#host.guestNetwork;
    return address === undefined || !this.#host.leasesAreTrue ? undefined : { address, leaseSeconds: 60 };
  }

  async countDropped(): Promise<void> {}

  dropped(vmId: number): number | undefined {
    return this.#host.policies.has(vmId) ? 0 : undefined;
  }

  setNeighbour({ address, mac }: BridgeNeighbour): Promise<void> {
    return this.#life.effect(() => void this.#host.neighbours.set(address, mac));
  }

  deleteNeighbour(address: number): Promise<void> {
    return this.#life.effect(() => void this.#host.neighbours.delete(address));
  }

  async watch(): Promise<void> {}
  async close(): Promise<void> {}
}

const data = { transport: "virtio-serial", wanted: "off", reason: "nobody asked" } as const;

export class MemoryRuntime implements Runtime {
  readonly info = { name: "qemu", path: "/qemu", version: "0", accelerator: "tcg", machine: "none", data } as const;
  readonly #host: MemoryHost;
  readonly #life: Life;

  constructor(host: MemoryHost, life: Life) {
    this.#host = host;
    this.#life = life;
  }

  identity(vmId: number) {
    return { uid: 1_900_000_000 + vmId, gid: 1_900_000_000 + vmId };
  }

  sockets(vmId: number) {
    return { control: `/run/${vmId}/control`, stream: `/run/${vmId}/stream`, serial: `/run/${vmId}/serial` };
  }

  observe(): Promise<readonly HypervisorProcess[]> {
    return this.#life.effect(() => [...this.#host.processes.values()], false);
  }

  async observeBackends(): Promise<readonly HypervisorProcess[]> {
    return [...this.#host.backends.values()];
  }

  endBackend({ pid, vmId, generation }: HypervisorProcess): Promise<void> {
    return this.#life.effect(() => {
      const used = [...this.#host.processes.values()].some(
        (process) => process.vmId === vmId && process.generation === generation,
      );
      if (used) throw new Error(`VM ${vmId} lost its vsock device while it ran`);
      this.#host.backends.delete(pid);
    });
  }

  dataTransport(): undefined {}

  checkRoom(): void {}

  listFolders(): Promise<readonly number[]> {
    return this.#life.effect(() => [...this.#host.folders], false);
  }

  launch({ vmId, generation, network }: LaunchSpec): Promise<HypervisorProcess> {
    return this.#life.effect(() => {
      const error = this.#host.launchErrors.shift();
      if (error !== undefined) throw error;
      const running = [...this.#host.processes.values()].filter((process) => process.vmId === vmId);
      if (running.length > 0) throw new Error(`VM ${vmId} was started twice`);
      const tap = [...this.#host.taps.values()].find((other) => other.vmId === vmId);
      if (tap?.name !== network?.tap) throw new Error(`VM ${vmId} was started without its tap`);
      const process = { vmId, generation, pid: this.#host.nextId++, startTicks: BigInt(this.#host.nextId) };
      this.#host.processes.set(process.pid, process);
      if (this.#host.withVsock) {
        const pid = this.#host.nextId++;
        this.#host.backends.set(pid, { ...process, pid });
      }
      this.#host.folders.add(vmId);
      return process;
    });
  }

  async waitForExit({ pid }: HypervisorProcess): Promise<void> {
    if (!this.#host.processes.has(pid)) return;
    await new Promise<void>((resolve) => {
      const onExit = (ended: number) => {
        if (ended === pid) resolve();
      };
      this.#host.exits.on("exit", onExit);
    });
  }

  isPaused({ vmId }: HypervisorProcess): boolean {
    return this.#host.paused.has(vmId);
  }

  pressPowerButton({ pid }: HypervisorProcess): Promise<void> {
    return this.#life.effect(() => this.#host.end(pid, "guest-shutdown"));
  }

  kill({ pid }: HypervisorProcess): Promise<void> {
    return this.#life.effect(() => this.#host.end(pid, "host-signal"));
  }

  exitReport(vmId: number): Promise<ExitReport> {
    return this.#life.effect(() => {
      const cause = this.#host.ends.get(vmId) ?? "unknown";
      return { cause, message: `it ended: ${cause}`, consoleTail: ["last words"] };
    }, false);
  }

  async consoleTail(): Promise<readonly string[]> {
    return ["last words"];
  }

  removeFolder(vmId: number): Promise<void> {
    return this.#life.effect(() => {
      const held = [...this.#host.processes.values()].some((process) => process.vmId === vmId);
      if (held) throw new Error(`the folder of VM ${vmId} was taken from under its hypervisor`);
      this.#host.folders.delete(vmId);
    });
  }

  async close(): Promise<void> {}
}

export class MemoryImages implements ImageStore {
  async has(): Promise<boolean> {
    return true;
  }
  async put(_checksum: string, content: Readable): Promise<void> {
    content.resume();
  }
  async adopt(file: { readonly checksum?: string }): Promise<string> {
    return file.checksum ?? `sha256:${"0".repeat(64)}`;
  }
  pathOf(checksum: string): string {
    return `/images/${checksum}`;
  }
  async sizeOf(): Promise<number> {
    return 1000;
  }
  async bootImage(): Promise<BootImage> {
    return { initrdPath: "/boot.cpio", unpackedBytes: 1000 };
  }
  async kernel() {
    return { bzImagePath: "/bzImage" };
  }
  async prune(): Promise<void> {}
}

/** A guest that calls home at once, and is well as soon as it is configured. */
export class MemoryGuest extends EventEmitter implements GuestPort {
  agent: AgentInfo | undefined;
  readonly state = "attached";
  readonly transport = { name: "virtio-serial" } as const;
  readonly #host: MemoryHost;
  readonly #options: GuestPortOptions;
  readonly #closing = new AbortController();

  constructor(host: MemoryHost, options: GuestPortOptions) {
    super();
    this.#host = host;
    this.#options = options;
    setImmediate(() => {
      if (this.#closing.signal.aborted || this.#process() === undefined) return;
      this.agent = { version: "0", protocol: 1, kernel: "6", bootId: "boot" };
      this.emit("attached", this.agent);
    });
    // Said of every guest: tests that do so have one.
    host.guestNews.on("silent", () => this.emit("silent", performance.now()));
    host.guestNews.on("answering", () => this.emit("answering"));
    host.guestNews.on("refused", (sentence: string) => this.emit("refused", sentence));
    host.guestNews.on("network", () => this.emit("status", this.#status()));
  }

  #process(): HypervisorProcess | undefined {
    const { vmId, generation } = this.#options;
    return [...this.#host.processes.values()].find(
      (process) => process.vmId === vmId && process.generation === generation,
    );
  }

  async configure(): Promise<boolean> {
    return true;
  }

  get lastStatus(): GuestStatus {
    return this.#status();
  }

  #status(): GuestStatus {
    return {
      hostname: "vm",
      generation: this.#options.generation,
      network: this.#host.guestNetwork,
      workload: { state: "running", pid: 2, restarts: 0 },
      health: this.#host.isWell(this.#options.vmId)
        ? this.#host.health
        : { state: "unhealthy", reason: "it was told to be" },
      bootId: "boot",
      uptimeMs: 1,
      memory: { totalKib: 1, availableKib: 1, agentKib: 1 },
    };
  }

  async *logs(): AsyncGenerator<GuestLogEntry> {
    yield* await this.readLogs(0);
  }

  async readLogs(after: number): Promise<GuestLogEntry[]> {
    if (after >= 1) {
      await untilAborted(this.#closing.signal);
      throw new VolantError("guest_unreachable", "the link to the guest was closed");
    }
    return [
      {
        kind: "line",
        seq: 1,
        stream: "stdout",
        line: "hello",
        timestamp: "2026-01-01T00:00:00.000Z",
        truncated: false,
      },
    ];
  }

  async checkHealth(): Promise<void> {}

  /** Sends back what it gets. */
  async open(): Promise<Duplex> {
    return new PassThrough();
  }

  async download(path: string): Promise<Readable> {
    return Readable.from([path]);
  }

  async upload(): Promise<string> {
    return '{"files":0,"bytes":0,"left_out":0}';
  }

  async shutdown(): Promise<void> {
    const process = this.#process();
    if (process !== undefined) setImmediate(() => this.#host.end(process.pid, "guest-shutdown"));
  }

  async close(): Promise<void> {
    this.#closing.abort();
  }
}

async function untilAborted(...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  const all = AbortSignal.any(signals.filter((signal) => signal !== undefined));
  if (!all.aborted) await new Promise((resolve) => all.addEventListener("abort", resolve, { once: true }));
}
