/**
 * Stand-ins for the host that the engine works on: processes, links and guests in memory. They outlive an engine, as the real ones do, and can be told
 * to leave one in the middle of a call, as a killed volantd would be.
 */
import { EventEmitter } from "node:events";
import type { Readable } from "node:stream";
import { VolantError } from "@volant/contract";
import { PassThrough, type Duplex } from "node:stream";
import type { GuestPort, GuestPortOptions } from "../engine/guest-session.ts";
import type { GuestNetworkStatus, GuestStatus } from "../guest/guest-status.ts";
import type { AgentInfo } from "../guest/handshake.ts";
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
import type { ExitReport, HypervisorProcess, LaunchSpec, Runtime } from "../runtime/runtime.ts";

/** What the kernel would hold. */
export class MemoryHost {
  readonly processes = new Map<number, HypervisorProcess>();
  readonly taps = new Map<number, MarkedTap>();
  readonly neighbours = new Map<number, string>();
  readonly folders = new Set<number>();
  readonly foreignNames = new Set(["eth0"]);
  bridge: "up" | "down" | "missing" = "up";
  readonly otherBridges = new Map<string, BridgeState>();
  /** What guests say of their network; they say it again when {@link MemoryHost.guestNews} emits "network". */
  guestNetwork: GuestNetworkStatus = { applied: true };
  readonly guestNews = new EventEmitter().setMaxListeners(0);
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

  observe(): Promise<NetworkView> {
    const { bridge, addressed, taps, neighbours, foreignNames } = this.#host;
    return this.#life.effect(
      () => ({
        network: { managed: true, bridge, bridgeName: "vbr0", addressed },
        otherBridges: this.#host.otherBridges,
        taps: [...taps.values()],
        foreignNames: new Set(foreignNames),
        neighbours: [...neighbours].map(([address, mac]) => ({ address, mac })),
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

  createTap({ vmId, name, uid, bridge = "vbr0" }: TapRequest): Promise<void> {
    return this.#life.effect(() => {
      const taken = this.#host.foreignNames.has(name) || [...this.#host.taps.values()].some((tap) => tap.name === name);
      if (taken) throw new VolantError("exists", `a link named ${name} exists already`);
      const index = this.#host.nextId++;
      this.#host.taps.set(index, { vmId, index, name, up: true, bridge, usable: true, owner: uid });
    });
  }

  repairTap(tap: Pick<ObservedTap, "index">, bridge = "vbr0"): Promise<void> {
    return this.#life.effect(() => {
      const found = this.#host.taps.get(tap.index);
      if (found !== undefined) this.#host.taps.set(tap.index, { ...found, up: true, bridge });
    });
  }

  deleteTap(tap: ObservedTap): Promise<void> {
    return this.#life.effect(() => void this.#host.taps.delete(tap.index));
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

export class MemoryRuntime implements Runtime {
  readonly info = { name: "qemu", path: "/qemu", version: "0", accelerator: "tcg", machine: "none" } as const;
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

  listFolders(): Promise<readonly number[]> {
    return this.#life.effect(() => [...this.#host.folders], false);
  }

  launch({ vmId, generation, network }: LaunchSpec): Promise<HypervisorProcess> {
    return this.#life.effect(() => {
      const running = [...this.#host.processes.values()].filter((process) => process.vmId === vmId);
      if (running.length > 0) throw new Error(`VM ${vmId} was started twice`);
      const tap = [...this.#host.taps.values()].find((other) => other.vmId === vmId);
      if (tap === undefined || tap.name !== network?.tap) throw new Error(`VM ${vmId} was started without its tap`);
      const process = { vmId, generation, pid: this.#host.nextId++, startTicks: BigInt(this.#host.nextId) };
      this.#host.processes.set(process.pid, process);
      this.#host.folders.add(vmId);
      return process;
    });
  }

  async waitForExit({ pid }: HypervisorProcess, signal: AbortSignal): Promise<void> {
    if (!this.#host.processes.has(pid)) return;
    await new Promise<void>((resolve, reject) => {
      const onExit = (ended: number) => {
        if (ended === pid) resolve();
      };
      this.#host.exits.on("exit", onExit);
      signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    });
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

  async *watchStatus(signal?: AbortSignal): AsyncGenerator<GuestStatus> {
    while (signal?.aborted !== true && !this.#closing.signal.aborted) {
      yield this.#status();
      const news = new AbortController();
      const onNews = () => news.abort();
      this.#host.guestNews.once("network", onNews);
      await untilAborted(news.signal, signal, this.#closing.signal);
      this.#host.guestNews.off("network", onNews);
    }
  }

  #status(): GuestStatus {
    return {
      hostname: "vm",
      generation: this.#options.generation,
      network: this.#host.guestNetwork,
      workload: { state: "running", pid: 2, restarts: 0 },
      health: { state: "healthy" },
      bootId: "boot",
      uptimeMs: 1,
      memory: { totalKib: 1, availableKib: 1, agentKib: 1 },
    };
  }

  async *logs({
    after = 0,
    follow,
    signal,
  }: {
    readonly after?: number;
    readonly follow?: boolean;
    readonly signal?: AbortSignal;
  }): AsyncGenerator<GuestLogEntry> {
    if (after < 1)
      yield {
        kind: "line",
        seq: 1,
        stream: "stdout",
        line: "hello",
        timestamp: "2026-01-01T00:00:00.000Z",
        truncated: false,
      };
    if (follow === true) await untilAborted(signal, this.#closing.signal);
  }

  async checkHealth(): Promise<void> {}

  /** Sends back what it gets. */
  async open(): Promise<Duplex> {
    return new PassThrough();
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
