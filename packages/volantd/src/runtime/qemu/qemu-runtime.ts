/** The QEMU runtime: launches, finds again, watches and ends hypervisor processes. */
import type { ChildProcess } from "node:child_process";
import { writeFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { VolantError } from "@volant/contract";
import { archiveConsole, MAX_FILE_BYTES, readTail, tailLines } from "../console-log.ts";
import { isRunning, type KnownProcesses, scanProcesses, startTicksOf } from "../process-table.ts";
import type { ExitReport, GuestSockets, HypervisorProcess, LaunchSpec, Runtime, RuntimeInfo } from "../runtime.ts";
import {
  checkRuntimeDir,
  exitRecordPath,
  listVmFolders,
  makeVmFolder,
  openRegular,
  vmPaths,
  type VmPaths,
} from "../vm-folder.ts";
import { chooseMachine, LAUNCH_CHAIN, qemuArguments, type Machine, type MachineFacts } from "./argv.ts";
import { describeExit, parseExitRecord, type ExitRecord } from "./exit-report.ts";
import { findQemu, kvmAccess, qemuVersion, readCpuFacts } from "./host-facts.ts";
import { vmIdentity } from "./identity.ts";
import { QmpError } from "./qmp-codec.ts";
import { SEARCH_PATH, startHypervisor } from "./start.ts";
import { childExit, Watch } from "./watch.ts";

/** QEMU answers 60 to 100 ms after its start; a host where many start at once may take longer. */
const LAUNCH_TIMEOUT_MS = 30_000;
/** How far back the reason of a panic is looked for. */
const SEARCHED_LINES = 400;
const ROTATE_INTERVAL_MS = 10_000;
/** A killed process is gone within milliseconds, unless the kernel holds it in the middle of I/O. */
const KILL_TIMEOUT_MS = 10_000;

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
  readonly #known: KnownProcesses = new Map();
  readonly #closing = new AbortController();
  #rotation: Promise<void> = Promise.resolve();

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
    const machine = options.machine ?? chooseMachine({ accelerator, ...rate });
    await mkdir(runtimeDir, { recursive: true, mode: 0o700 });
    await mkdir(options.logDir, { recursive: true, mode: 0o750 });
    const info: RuntimeInfo = { name: "qemu", path, version, accelerator, machine };
    options.log.info({ ...info }, "hypervisor chosen");
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
    timer.unref();
    this.#closing.signal.addEventListener("abort", () => clearInterval(timer), { once: true });
  }

  identity(vmId: number): { readonly uid: number; readonly gid: number } {
    return vmIdentity(vmId);
  }

  sockets(vmId: number): GuestSockets {
    const { control, stream, serial } = this.#paths(vmId);
    return { control, stream, serial };
  }

  async observe(): Promise<readonly HypervisorProcess[]> {
    const scan = {
      installation: this.#options.installation,
      programs: [...LAUNCH_CHAIN, basename(this.info.path)],
      uidOf: (vmId: number) => vmIdentity(vmId).uid,
    };
    return await scanProcesses(scan, this.#known);
  }

  async listFolders(): Promise<readonly number[]> {
    return await listVmFolders(this.#runtimeDir);
  }

  async launch(spec: LaunchSpec, signal: AbortSignal): Promise<HypervisorProcess> {
    signal.throwIfAborted();
    const args = qemuArguments(this.#options.installation, spec, this.#setup.facts);
    const paths = this.#paths(spec.vmId);
    await this.#keepPreviousConsole(spec.vmId);
    await makeVmFolder(paths);
    const groups = this.#setup.groups;
    const confinement = { ...this.identity(spec.vmId), groups, maxFileBytes: MAX_FILE_BYTES };
    const child = await startHypervisor({ spec, paths, confinement, program: this.info.path, args });
    const startTicks = startTicksOf(child.pid as number);
    if (startTicks === undefined) {
      await childExit(child);
      throw await this.#launchFailure(spec, paths, child);
    }
    const { vmId, generation } = spec;
    const process: HypervisorProcess = { vmId, generation, pid: child.pid as number, startTicks };
    const watch = this.#watch(process, child);
    const timeout = AbortSignal.timeout(LAUNCH_TIMEOUT_MS);
    try {
      await watch.answering(AbortSignal.any([signal, timeout]));
      return process;
    } catch (error) {
      const gone = !isRunning(process);
      await this.kill(process);
      await childExit(child);
      signal.throwIfAborted();
      if (gone) throw await this.#launchFailure(spec, paths, child);
      if (!timeout.aborted && !(error instanceof QmpError)) throw error;
      throw new VolantError("not_ready", `the hypervisor of VM ${spec.name} did not answer`, { cause: error });
    } finally {
      // From here on the VM's life must not keep this process alive.
      child.unref();
    }
  }

  async waitForExit(process: HypervisorProcess, signal: AbortSignal): Promise<void> {
    await this.#watch(process).ended(signal);
  }

  async pressPowerButton(process: HypervisorProcess): Promise<void> {
    const timeout = AbortSignal.timeout(LAUNCH_TIMEOUT_MS);
    try {
      await this.#watch(process).execute("system_powerdown", timeout);
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
      await watch.ended(giveUp.signal);
    } catch (error) {
      if (!isRunning(target)) return;
      throw new VolantError("timeout", `the hypervisor process ${target.pid} does not end, though it was killed`, {
        cause: error,
      });
    } finally {
      clearTimeout(timer);
    }
  }

  async exitReport(vmId: number, generation: number): Promise<ExitReport> {
    const paths = this.#paths(vmId);
    let record: ExitRecord | undefined;
    {
      await using file = await openRegular(exitRecordPath(paths, generation));
      if (file !== undefined) record = parseExitRecord(await file.readFile("utf8"), generation);
    }
    // The console may have been moved away a moment ago.
    const parts = [await readTail(this.#archivePath(vmId)), await readTail(paths.console)];
    return describeExit(
      record,
      tailLines(Buffer.concat(parts), SEARCHED_LINES),
      tailLines(await readTail(paths.hypervisorLog)),
    );
  }

  async removeFolder(vmId: number): Promise<void> {
    await this.#rotation;
    await rm(this.#paths(vmId).folder, { recursive: true, force: true });
    for (const path of [this.#archivePath(vmId), this.#previousPath(vmId)]) await rm(path, { force: true });
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

  #watch(process: HypervisorProcess, child?: ChildProcess): Watch {
    const key = `${process.pid}:${process.startTicks}`;
    const known = this.#watches.get(key);
    if (known !== undefined) return known;
    const paths = this.#paths(process.vmId);
    const watch = new Watch({
      process,
      qmpPath: paths.qmp,
      ...(child === undefined ? {} : { child }),
      onEnd: (record) => {
        this.#watches.delete(key);
        recordExit(exitRecordPath(paths, process.generation), record, this.#options.log);
      },
    });
    this.#watches.set(key, watch);
    return watch;
  }

  #rotateAll(): void {
    const vmIds = new Set([...this.#watches.values()].map((watch) => watch.process.vmId));
    this.#rotation = this.#rotation.then(async () => {
      for (const vmId of vmIds) await this.#archive(vmId, this.#archivePath(vmId), false);
    });
  }

  /** The last run's console is kept until the next launch, apart from this run's: a report must not quote the one for the other. */
  async #keepPreviousConsole(vmId: number): Promise<void> {
    await this.#rotation;
    await this.#archive(vmId, this.#previousPath(vmId), true);
    await rm(this.#archivePath(vmId), { force: true });
  }

  /** A full disk must neither keep a VM from starting nor end volantd. */
  async #archive(vmId: number, to: string, always: boolean): Promise<void> {
    try {
      await archiveConsole(this.#paths(vmId).console, to, always);
    } catch (error) {
      this.#options.log.warn({ vmId, error }, "the console's log can't be moved to its archive");
    }
  }

  async #launchFailure(spec: LaunchSpec, paths: VmPaths, child: ChildProcess): Promise<VolantError> {
    const said = tailLines(await readTail(paths.hypervisorLog));
    const words = said.length === 0 ? "it said nothing" : said.slice(-3).join("; ");
    const status = child.signalCode ?? `status ${child.exitCode}`;
    return new VolantError("not_ready", `the hypervisor of VM ${spec.name} ended at its start (${status}): ${words}`);
  }
}

/** Once per generation: what an earlier volantd saw of its end stays. */
function recordExit(path: string, record: ExitRecord, log: RuntimeLog): void {
  try {
    writeFileSync(path, JSON.stringify(record), { mode: 0o600, flag: "wx" });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== "EEXIST" && code !== "ENOENT") log.warn({ path, error }, "the hypervisor's end can't be recorded");
  }
}
