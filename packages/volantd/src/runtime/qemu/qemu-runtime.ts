/** The QEMU runtime: launches, finds again, watches and ends hypervisor processes. */
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, constants, fstatSync, openSync, writeFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { VolantError } from "@volant/contract";
import { closeTap, openTap } from "@volant/netlink";
import { archiveConsole, MAX_FILE_BYTES, readTail, tailLines } from "../console-log.ts";
import { isRunning, scanProcesses, startTicksOf } from "../process-table.ts";
import type { ExitReport, GuestSockets, HypervisorProcess, LaunchSpec, Runtime, RuntimeInfo } from "../runtime.ts";
import {
  checkRuntimeDir,
  exitRecordPath,
  listVmFolders,
  ListeningSocket,
  makeVmFolder,
  openRegular,
  vmPaths,
} from "../vm-folder.ts";
import type { VmPaths } from "../vm-folder.ts";
import {
  chooseMachine,
  confinedCommand,
  LAUNCH_CHAIN,
  qemuArguments,
  type Machine,
  type MachineFacts,
} from "./argv.ts";
import { describeExit, parseExitRecord, type ExitRecord } from "./exit-report.ts";
import { findQemu, kvmAccess, qemuVersion, readCpuFacts } from "./host-facts.ts";
import { vmIdentity } from "./identity.ts";
import { QmpError } from "./qmp-codec.ts";
import { childExit, Watch } from "./watch.ts";

/** QEMU answers 60 to 100 ms after its start; a host where many start at once may take longer. */
const LAUNCH_TIMEOUT_MS = 30_000;
/** How far back the reason of a panic is looked for. */
const SEARCHED_LINES = 400;
const ROTATE_INTERVAL_MS = 10_000;
/** A killed process is gone within milliseconds, unless the kernel holds it in the middle of I/O. */
const KILL_TIMEOUT_MS = 10_000;
/** The guest is more likely to be what the kernel ends when memory runs out than what serves all guests (proc_pid_oom_score_adj(5)). */
const OOM_SCORE_ADJ = 200;
const SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    return await scanProcesses({
      installation: this.#options.installation,
      programs: [...LAUNCH_CHAIN, basename(this.info.path)],
      uidOf: (vmId) => vmIdentity(vmId).uid,
    });
  }

  async listFolders(): Promise<readonly number[]> {
    return await listVmFolders(this.#runtimeDir);
  }

  async launch(spec: LaunchSpec, signal: AbortSignal): Promise<HypervisorProcess> {
    signal.throwIfAborted();
    const args = qemuArguments(this.#options.installation, spec, this.#setup.facts);
    const paths = this.#paths(spec.vmId);
    // The console of the run before this one is kept until the next one needs the archive.
    await this.#archive(spec.vmId, true);
    await makeVmFolder(paths);
    const child = await this.#spawn(spec, paths, args);
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
    await rm(this.#archivePath(vmId), { force: true });
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

  /** Starts the exec chain that ends in QEMU. Everything that the process is given is closed here again, whatever happens. */
  async #spawn(spec: LaunchSpec, paths: VmPaths, args: readonly string[]): Promise<ChildProcess> {
    const { elfPath, bzImagePath } = spec.kernel;
    const descriptors: number[] = [];
    const sockets: ListeningSocket[] = [];
    let tap: number | undefined;
    const append = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_EXCL;
    try {
      descriptors.push(openImage(elfPath ?? bzImagePath, "kernel", "run: volar kernel install"));
      descriptors.push(openImage(spec.initrdPath, "boot image"));
      descriptors.push(openSync(paths.console, append, 0o600));
      const log = openSync(paths.hypervisorLog, append, 0o600);
      descriptors.push(log);
      for (const path of [paths.qmp, paths.control, paths.stream, paths.serial]) {
        sockets.push(await ListeningSocket.bind(path));
      }
      if (spec.network !== undefined) tap = openTapFor(spec.name, spec.network.tap);
      const identity = this.identity(spec.vmId);
      const confinement = { ...identity, groups: this.#setup.groups, maxFileBytes: MAX_FILE_BYTES };
      const [command, ...rest] = confinedCommand(confinement, this.info.path, args) as [string, ...string[]];
      const given = [
        ...descriptors.slice(0, 3),
        ...sockets.map((socket) => socket.fd),
        ...(tap === undefined ? [] : [tap]),
      ];
      for (const socket of sockets) socket.publish();
      const child = spawn(command, rest, {
        cwd: "/",
        detached: true,
        env: { PATH: SEARCH_PATH, LC_ALL: "C" },
        stdio: ["ignore", log, log, ...given],
      });
      if (child.pid === undefined) throw await spawnFailure(child, command);
      protectFromOom(child.pid);
      return child;
    } finally {
      for (const socket of sockets) socket.close();
      for (const fd of descriptors) closeSync(fd);
      if (tap !== undefined) await closeTap(tap);
    }
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
      for (const vmId of vmIds) await this.#archive(vmId, false);
    });
  }

  /** A full disk must neither keep a VM from starting nor end volantd. */
  async #archive(vmId: number, always: boolean): Promise<void> {
    try {
      await archiveConsole(this.#paths(vmId).console, this.#archivePath(vmId), always);
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

/** Opens a file that the hypervisor will open anew under a user of its own: that user must be allowed to. */
function openImage(path: string, what: string, hint?: string): number {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code === "ENOENT" ? "does not exist" : "can't be read";
    throw new VolantError("not_ready", `the ${what} ${path} ${reason}`, {
      cause: error,
      ...(hint === undefined ? {} : { hint }),
    });
  }
  const status = fstatSync(fd);
  if (status.isFile() && (status.mode & 0o004) !== 0) return fd;
  closeSync(fd);
  throw new VolantError("not_ready", `the ${what} ${path} is no file that everybody may read`, {
    hint: `run: chmod a+r ${path}`,
  });
}

function openTapFor(name: string, tap: string): number {
  try {
    return openTap(tap);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new VolantError("not_ready", `the tap ${tap} of VM ${name} can't be opened: ${why}`, { cause: error });
  }
}

/** Why a child did not come to be: Node tells in an event, a moment after. */
async function spawnFailure(child: ChildProcess, command: string): Promise<VolantError> {
  const error = await new Promise<NodeJS.ErrnoException>((tell) => child.once("error", tell));
  const missing = error.code === "ENOENT";
  const message = missing ? `the program ${command} is missing` : `${command} can't be started (${error.code})`;
  return new VolantError("not_ready", message, {
    cause: error,
    ...(missing ? { hint: "apt-get install util-linux coreutils" } : {}),
  });
}

function protectFromOom(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, String(OOM_SCORE_ADJ));
  } catch {
    // Gone already, which the launch will notice; or the host forbids it, and the default serves.
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
