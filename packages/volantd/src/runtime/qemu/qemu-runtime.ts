/** The QEMU runtime: launches, finds again, watches and ends hypervisor processes. */
import { existsSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { VolantError } from "@volant/contract";
import type { DataTransport } from "../../guest/data-link.ts";
import { archiveConsole, MAX_FILE_BYTES, readTail, tailLines, unfinishedArchive } from "../console-log.ts";
import {
  isRunning,
  KnownProcesses,
  type MarkedProcess,
  type ProcessScan,
  scanProcesses,
  startTicksOf,
} from "../process-table.ts";
import type { ExitReport, GuestSockets, HypervisorProcess, LaunchSpec, Runtime, RuntimeInfo } from "../runtime.ts";
import {
  checkRuntimeDir,
  exitRecordPath,
  listVmFolders,
  makeVmFolder,
  openRegular,
  removeFile,
  removeVmFolder,
  vmPaths,
  type VmPaths,
} from "../vm-folder.ts";
import { checkRoomForVm } from "../descriptors.ts";
import { hostLimit, hostLimitInWords } from "../host-limit.ts";
import { chooseMachine, LAUNCH_CHAIN, qemuArguments, type Machine, type MachineFacts } from "./argv.ts";
import { describeExit, parseExitRecord, type ExitRecord } from "./exit-report.ts";
import { findQemu, kvmAccess, qemuVersion, readCpuFacts } from "./host-facts.ts";
import { vmIdentity } from "./identity.ts";
import { OwnChild } from "./own-child.ts";
import { QmpError } from "./qmp-codec.ts";
import { orAborted } from "../../or-aborted.ts";
import { Slots } from "../../slots.ts";
import { SEARCH_PATH, startHypervisor } from "./start.ts";
import { BACKEND_PROGRAM } from "../vsock/argv.ts";
import { backendTrouble, endBackend, startBackend, type StartedBackend } from "../vsock/backend.ts";
import { chooseDataTransport, type VsockSetting } from "../vsock/choice.ts";
import { VsockGate } from "../vsock/gate.ts";
import { RunState } from "../vsock/run-state.ts";
import { Watch } from "./watch.ts";

/** QEMU answers 60 to 100 ms after its start; a host where many start at once may take longer. */
const LAUNCH_TIMEOUT_MS = 30_000;
/** How far back the reason of a panic is looked for. */
const SEARCHED_LINES = 400;
const ROTATE_INTERVAL_MS = 10_000;
/** The same for guests that flood their consoles. */
const BUSY_ROTATE_INTERVAL_MS = 500;
/** Each has up to 16 files open for a moment (see DESCRIPTOR_RESERVE), and a hypervisor that begins takes a processor for a while. */
const LAUNCHES_AT_ONCE = 16;
/** Control sockets of adopted hypervisors that are connected to at a time. */
const CONNECTS_AT_ONCE = 32;
/** A killed process is gone within milliseconds, unless the kernel holds it in the middle of I/O. */
const KILL_TIMEOUT_MS = 10_000;

/**
 * How often all processes are read. Between that, those are left out whose control sockets are connected: that connection is the process's own and breaks with
 * its end, but one that was taken over might have given it away; and those that are none of ours.
 */
const READ_ALL_MS = 2000;
/** A watch sees the end of a process that is gone within milliseconds, or when it has looked again: at the latest after a second. */
const END_SEEN_MS = 3000;

export interface RuntimeLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface QemuRuntimeOptions {
  /** The installation's id, part of every process's mark. */
  readonly installation: string;
  readonly runtimeDir: string;
  readonly logDir: string;
  /** VOLANT_HYPERVISOR. */
  readonly hypervisor?: string | undefined;
  /** The path of the program that confines hypervisors. */
  readonly confiner: string;
  /** Default: off. */
  readonly vsock?: VsockSetting;
  readonly log: RuntimeLog;
  /** In place of the one that suits this host best. */
  readonly machine?: Machine;
  readonly rotateIntervalMs?: number;
}

interface Setup {
  readonly info: RuntimeInfo;
  readonly facts: MachineFacts;
  /** Groups that a hypervisor needs besides its own. */
  readonly groups: readonly number[];
}

export class QemuRuntime implements Runtime {
  readonly info: RuntimeInfo;
  readonly #options: QemuRuntimeOptions;
  readonly #runtimeDir: string;
  readonly #setup: Setup;
  readonly #watches = new Map<string, Watch>();
  readonly #known = new KnownProcesses();
  readonly #closing = new AbortController();
  readonly #connecting = new Slots(CONNECTS_AT_ONCE);
  readonly #launching = new Slots(LAUNCHES_AT_ONCE);
  /** Ends that could not be written down, since the disk is full or the folder gone: this volantd, at least, knows them. */
  readonly #unwritten = new Map<number, ExitRecord>();
  #scanning: Promise<MarkedProcess[]> | undefined;
  #readAllAtMs = Number.NEGATIVE_INFINITY;
  #rotation: Promise<void> = Promise.resolve();
  /** VMs whose guests print much, and whether that was so since all were looked at: they are looked at often, so that the log has the last that they print. */
  readonly #busyConsoles = new Map<number, boolean>();

  /**
   * Looks at the host and chooses accelerator and machine, once.
   *
   * @throws VolantError `not_ready` (no QEMU), `invalid` (a setting, or too long a runtime folder), `not_supported` (architecture, other hypervisor)
   */
  static async open(options: QemuRuntimeOptions): Promise<QemuRuntime> {
    if (process.arch !== "x64") {
      throw new VolantError("not_supported", `guests run on x86-64 hosts only so far, and this one is ${process.arch}`);
    }
    const runtimeDir = resolve(options.runtimeDir);
    checkRuntimeDir(runtimeDir);
    const path = await findQemu(options.hypervisor, process.env["PATH"] ?? SEARCH_PATH);
    const version = await qemuVersion(path);
    const cpu = await readCpuFacts();
    const kvm = await kvmAccess(cpu);
    const accelerator = kvm.usable ? "kvm" : "tcg";
    const rate = cpu.tscKhz === undefined ? {} : { tscKhz: cpu.tscKhz };
    const machine = options.machine ?? chooseMachine(accelerator);
    const data = await chooseDataTransport(options.vsock ?? { wanted: "off" }, process.env["PATH"] ?? SEARCH_PATH);
    await mkdir(runtimeDir, { recursive: true, mode: 0o700 });
    await mkdir(options.logDir, { recursive: true, mode: 0o750 });
    const info: RuntimeInfo = { name: "qemu", path, version, accelerator, machine, data };
    options.log.info({ ...info }, "hypervisor chosen");
    if (data.transport === "virtio-serial" && data.wanted === "auto") {
      options.log.warn({ reason: data.reason }, "data goes over virtio-serial, and not over vsock");
    } else options.log.info({ ...data }, `data goes over ${data.transport}`);
    return new QemuRuntime(options, runtimeDir, {
      info,
      facts: { accelerator, machine, ...rate },
      groups: kvm.groups,
    });
  }

  private constructor(options: QemuRuntimeOptions, runtimeDir: string, setup: Setup) {
    this.info = setup.info;
    this.#options = options;
    this.#runtimeDir = runtimeDir;
    this.#setup = setup;
    const timer = setInterval(() => this.#rotateAll(), options.rotateIntervalMs ?? ROTATE_INTERVAL_MS);
    const busy = setInterval(() => this.#rotateBusy(), BUSY_ROTATE_INTERVAL_MS);
    for (const each of [timer, busy]) {
      each.unref();
      this.#closing.signal.addEventListener("abort", () => clearInterval(each), { once: true });
    }
  }

  identity(vmId: number): { readonly uid: number; readonly gid: number } {
    return vmIdentity(vmId);
  }

  sockets(vmId: number): GuestSockets {
    const { control, stream, serial } = this.#paths(vmId);
    return { control, stream, serial };
  }

  async observe(): Promise<readonly HypervisorProcess[]> {
    return await this.#processes("hypervisor");
  }

  async observeBackends(): Promise<readonly HypervisorProcess[]> {
    return await this.#processes("vsock_backend");
  }

  async #processes(wanted: "hypervisor" | "vsock_backend"): Promise<HypervisorProcess[]> {
    const marked = await this.#scan();
    return marked.flatMap(({ role, ...process }) => (role === wanted ? [process] : []));
  }

  dataTransport(vmId: number, generation: number): DataTransport | undefined {
    if (this.info.data.wanted === "off") return undefined;
    const path = this.#paths(vmId).data;
    if (!existsSync(path)) return new NoTransport("it was started without a vsock device");
    const watch = [...this.#watches.values()].find(
      ({ process }) => process.vmId === vmId && process.generation === generation,
    );
    const trouble = async () => {
      const backends = await this.observeBackends();
      return backendTrouble(backends.find((other) => other.vmId === vmId && other.generation === generation));
    };
    return new VsockGate({ path, run: watch?.run ?? new RunState(), trouble });
  }

  endBackend(process: HypervisorProcess): Promise<void> {
    return endBackend(process);
  }

  /** Looks at all processes. Those who ask within one turn of the event loop share a look; nobody gets one that began before. */
  #scan(): Promise<MarkedProcess[]> {
    if (this.#scanning !== undefined) return this.#scanning;
    const nowMs = performance.now();
    const isDue = nowMs - this.#readAllAtMs >= READ_ALL_MS;
    if (isDue) this.#readAllAtMs = nowMs;
    const scan: ProcessScan = {
      installation: this.#options.installation,
      programs: [...LAUNCH_CHAIN, basename(this.info.path), BACKEND_PROGRAM],
      uidOf: (vmId: number) => vmIdentity(vmId).uid,
      isWhole: isDue,
      // The other end of its connection is a descriptor of that process.
      isKnownToLive: (process) => !isDue && this.#watches.get(keyOf(process))?.isConnected === true,
    };
    this.#scanning = scanProcesses(scan, this.#known);
    queueMicrotask(() => (this.#scanning = undefined));
    return this.#scanning;
  }

  checkRoom(): void {
    checkRoomForVm();
  }

  async listFolders(): Promise<readonly number[]> {
    return listVmFolders(this.#runtimeDir);
  }

  async launch(spec: LaunchSpec, signal: AbortSignal): Promise<HypervisorProcess> {
    signal.throwIfAborted();
    const { installation } = this.#options;
    const { facts } = this.#setup;
    // Before anything is done: what is wrong with the launch is said at once.
    qemuArguments(installation, spec, facts);
    try {
      return await this.#launching.run(() => {
        signal.throwIfAborted();
        this.checkRoom();
        return this.#launch(spec, this.#paths(spec.vmId), signal);
      });
    } catch (error) {
      signal.throwIfAborted();
      throw hostLimit(spec.name, error) ?? error;
    }
  }

  async #launch(spec: LaunchSpec, paths: VmPaths, signal: AbortSignal): Promise<HypervisorProcess> {
    const { installation, confiner } = this.#options;
    const { facts, groups } = this.#setup;
    await this.#keepPreviousConsole(spec.vmId);
    await makeVmFolder(paths);
    const confinement = { confiner, ...this.identity(spec.vmId), groups, maxFileBytes: MAX_FILE_BYTES };
    const backend = await this.#startBackend(spec, paths, signal);
    try {
      const args = qemuArguments(installation, spec, facts, backend !== undefined);
      const program = this.info.path;
      const pid = await startHypervisor({ spec, paths, confinement, program, args, vsock: backend?.device });
      this.#known.started(pid);
      return await this.#awaitAnswer(spec, paths, new OwnChild(pid), signal);
    } catch (error) {
      if (backend !== undefined) await endBackend(backend.process);
      throw error;
    }
  }

  /** What will serve the VM's vsock device; undefined where it gets none. */
  async #startBackend(spec: LaunchSpec, paths: VmPaths, signal: AbortSignal): Promise<StartedBackend | undefined> {
    const { data } = this.info;
    if (data.transport !== "vsock") return undefined;
    const { vmId, generation, name, vsockCid: cid } = spec;
    const { installation, confiner } = this.#options;
    const mark = { installation, vmId, generation };
    // It opens no device, so it needs no group.
    const confinement = { confiner, ...this.identity(vmId), groups: [], maxFileBytes: MAX_FILE_BYTES };
    try {
      const started = (pid: number): void => this.#known.started(pid);
      return await startBackend({ mark, name, cid, paths, confinement, program: data.program, started }, signal);
    } catch (error) {
      if (data.wanted === "on" || !(error instanceof VolantError)) throw error;
      this.#options.log.warn({ vm: vmId, reason: error.message }, "a VM is started without a vsock device");
      return undefined;
    }
  }

  async #awaitAnswer(
    spec: LaunchSpec,
    paths: VmPaths,
    child: OwnChild,
    signal: AbortSignal,
  ): Promise<HypervisorProcess> {
    const startTicks = startTicksOf(child.pid);
    if (startTicks === undefined) throw await this.#launchFailure(spec, paths, child);
    const { vmId, generation } = spec;
    const process: HypervisorProcess = { vmId, generation, pid: child.pid, startTicks };
    const watch = this.#watch(process, child);
    // A launch keeps this process alive, though a watch does not.
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new QmpError("it took too long")), LAUNCH_TIMEOUT_MS);
    try {
      await Promise.race([watch.answering(signal), late.promise]);
      return process;
    } catch (error) {
      const gone = !isRunning(process);
      await this.kill(process);
      signal.throwIfAborted();
      if (gone) throw await this.#launchFailure(spec, paths, child);
      if (!(error instanceof QmpError)) throw error;
      throw new VolantError("not_ready", `the hypervisor of VM ${spec.name} did not answer`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  waitForExit(process: HypervisorProcess): Promise<void> {
    return this.#watch(process).ended;
  }

  async pressPowerButton(process: HypervisorProcess): Promise<void> {
    const timeout = AbortSignal.timeout(LAUNCH_TIMEOUT_MS);
    const watch = this.#watch(process);
    if (!watch.isConnected && !existsSync(this.#paths(process.vmId).qmp)) {
      throw new VolantError("not_ready", `the control socket of VM ${process.vmId} was removed: it takes no commands`);
    }
    try {
      await watch.execute("system_powerdown", timeout);
    } catch (error) {
      if (error instanceof QmpError && isRunning(process)) {
        throw new VolantError("timeout", `the hypervisor of VM ${process.vmId} takes no commands: ${error.message}`, {
          cause: error,
        });
      }
      // A process that is gone has no button to press, and needs none.
      if (isRunning(process)) throw error;
    }
  }

  async kill(target: HypervisorProcess): Promise<void> {
    const watch = this.#watch(target);
    // No await between the check and the signal: the pid can't come to name another process in between, short of the kernel giving out 4 million others.
    if (isRunning(target)) {
      try {
        process.kill(target.pid, "SIGKILL");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
    const giveUp = new AbortController();
    const timer = setTimeout(() => giveUp.abort(), KILL_TIMEOUT_MS);
    try {
      await orAborted(watch.ended, giveUp.signal);
    } catch (error) {
      if (!isRunning(target)) return;
      throw new VolantError("timeout", `the hypervisor process ${target.pid} does not end, though it was killed`, {
        cause: error,
      });
    } finally {
      clearTimeout(timer);
    }
  }

  isPaused(process: HypervisorProcess): boolean {
    return this.#watches.get(keyOf(process))?.run.paused === true;
  }

  async exitReport(vmId: number, generation: number): Promise<ExitReport> {
    const paths = this.#paths(vmId);
    let record = await this.#exitRecord(vmId, generation);
    if (record === undefined) {
      await this.#endSeen(vmId, generation);
      record = await this.#exitRecord(vmId, generation);
    }
    return describeExit(
      record,
      await this.consoleTail(vmId, SEARCHED_LINES),
      tailLines(await readTail(paths.hypervisorLog)),
    );
  }

  async consoleTail(vmId: number, limit: number): Promise<readonly string[]> {
    // The console may have been moved away a moment ago.
    const parts = [await readTail(this.#archivePath(vmId)), await readTail(this.#paths(vmId).console)];
    return tailLines(Buffer.concat(parts), limit);
  }

  async #exitRecord(vmId: number, generation: number): Promise<ExitRecord | undefined> {
    const unwritten = this.#unwritten.get(vmId);
    if (unwritten?.generation === generation) return unwritten;
    await using file = await openRegular(exitRecordPath(this.#paths(vmId), generation));
    return file === undefined ? undefined : parseExitRecord(await file.readFile("utf8"), generation);
  }

  /** Whoever looks at the process table may see an end a moment before the watch has, which knows more of it. */
  async #endSeen(vmId: number, generation: number): Promise<void> {
    for (const watch of this.#watches.values()) {
      const { process } = watch;
      if (process.vmId !== vmId || process.generation !== generation || isRunning(process)) continue;
      try {
        await orAborted(watch.ended, AbortSignal.timeout(END_SEEN_MS));
      } catch {
        // Then there is nothing more to know.
      }
    }
  }

  async removeFolder(vmId: number): Promise<void> {
    await this.#rotation;
    const paths = this.#paths(vmId);
    await removeVmFolder(paths);
    // One that began meanwhile may still have the console open, and make an archive of what it reads.
    await this.#rotation;
    this.#busyConsoles.delete(vmId);
    this.#unwritten.delete(vmId);
    for (const path of [this.#archivePath(vmId), this.#previousPath(vmId)]) {
      for (const file of [path, unfinishedArchive(path)]) removeFile(file);
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    for (const watch of this.#watches.values()) watch.close();
    this.#watches.clear();
    await this.#rotation;
  }

  #paths(vmId: number): VmPaths {
    return vmPaths(this.#runtimeDir, vmId);
  }

  #archivePath(vmId: number): string {
    return join(this.#options.logDir, `vm-${vmId}.console.log`);
  }

  #previousPath(vmId: number): string {
    return join(this.#options.logDir, `vm-${vmId}.console.previous.log`);
  }

  #watch(process: HypervisorProcess, child?: OwnChild): Watch {
    const key = keyOf(process);
    const known = this.#watches.get(key);
    if (known !== undefined) return known;
    const watch = new Watch({
      process,
      qmpPath: this.#paths(process.vmId).qmp,
      closing: this.#closing.signal,
      // A launch need not wait for those that an earlier volantd made.
      ...(child === undefined ? { turns: this.#connecting } : { child }),
      onEnd: (record) => {
        this.#watches.delete(key);
        const path = exitRecordPath(this.#paths(process.vmId), process.generation);
        const isWritten = recordExit(path, record, this.#options.log);
        // Who was seen alive by a look that is over may be watched once more, by a watch that has heard nothing: the first word stands, as it does in the file.
        const isKnown = this.#unwritten.get(process.vmId)?.generation === record.generation;
        if (!isWritten && !isKnown) this.#unwritten.set(process.vmId, record);
      },
    });
    this.#watches.set(key, watch);
    return watch;
  }

  #rotateAll(): void {
    const vmIds = new Set([...this.#watches.values()].map((watch) => watch.process.vmId));
    this.#rotation = this.#rotation.then(async () => {
      const quiet = [...this.#busyConsoles].filter(([, rotated]) => !rotated).map(([vmId]) => vmId);
      for (const vmId of quiet) this.#busyConsoles.delete(vmId);
      for (const vmId of this.#busyConsoles.keys()) this.#busyConsoles.set(vmId, false);
      await this.#rotate(vmIds);
    });
  }

  #rotateBusy(): void {
    if (this.#busyConsoles.size === 0) return;
    this.#rotation = this.#rotation.then(() => this.#rotate(this.#busyConsoles.keys()));
  }

  async #rotate(vmIds: Iterable<number>): Promise<void> {
    for (const vmId of vmIds) {
      if (await this.#archive(vmId, this.#archivePath(vmId), false)) this.#busyConsoles.set(vmId, true);
    }
  }

  /** The last run's console is kept until the next launch, apart from this run's: a report must not quote the one for the other. */
  async #keepPreviousConsole(vmId: number): Promise<void> {
    await this.#rotation;
    await this.#archive(vmId, this.#previousPath(vmId), true);
    removeFile(this.#archivePath(vmId));
  }

  /** A full disk must neither keep a VM from starting nor end volantd. */
  async #archive(vmId: number, to: string, always: boolean): Promise<boolean> {
    try {
      return await archiveConsole(this.#paths(vmId).console, to, always);
    } catch (error) {
      this.#options.log.warn({ vmId, error }, "the console's log can't be moved to its archive");
      return false;
    }
  }

  async #launchFailure(spec: LaunchSpec, paths: VmPaths, child: OwnChild): Promise<VolantError> {
    const { signal, exitCode } = await child.end();
    const said = tailLines(await readTail(paths.hypervisorLog));
    const limit = hostLimitInWords(spec.name, said);
    if (limit !== undefined) return limit;
    const words = said.length === 0 ? "it said nothing" : said.slice(-3).join("; ");
    const status = signal ?? `status ${exitCode}`;
    return new VolantError("not_ready", `the hypervisor of VM ${spec.name} ended at its start (${status}): ${words}`);
  }
}

/** Stands for a transport that a VM should have and has not. */
class NoTransport implements DataTransport {
  readonly held = false;
  readonly #reason: string;

  constructor(reason: string) {
    this.#reason = reason;
  }

  async trouble(): Promise<string> {
    return this.#reason;
  }

  async connect(): Promise<never> {
    throw new VolantError("not_ready", this.#reason);
  }

  whenRunning(action: () => void): void {
    action();
  }
}

function keyOf({ pid, startTicks }: HypervisorProcess): string {
  return `${pid}:${startTicks}`;
}

/** Once per generation: what an earlier volantd saw of its end stays. @returns whether there is one now */
function recordExit(path: string, record: ExitRecord, log: RuntimeLog): boolean {
  try {
    writeFileSync(path, JSON.stringify(record), { mode: 0o600, flag: "wx" });
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "EEXIST") return true;
    if (code !== "ENOENT") log.warn({ path, error }, "the hypervisor's end can't be recorded");
    return false;
  }
}
