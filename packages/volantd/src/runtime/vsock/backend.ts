/**
 * The process that serves one VM's vsock device: vhost-device-vsock, as the VM's own user, in a session of its own. The hypervisor's end does not end it,
 * nor does volantd's: like a hypervisor it is found again by its mark, and ended when its VM is gone.
 */
import { spawn, type ChildProcess } from "node:child_process";
import {
  chownSync,
  closeSync,
  constants,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
} from "node:fs";
import { createConnection, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { VolantError } from "@volant/contract";
import { readTail, tailLines } from "../console-log.ts";
import type { ProcessMark } from "../process-mark.ts";
import { isRunning, startTicksOf } from "../process-table.ts";
import { confinedCommand, type Confinement } from "../qemu/argv.ts";
import { SEARCH_PATH } from "../qemu/start.ts";
import type { HypervisorProcess } from "../runtime.ts";
import type { VmPaths } from "../vm-folder.ts";
import { BACKEND_PROGRAM, backendArguments, CONNECT_SOCKET, DEVICE_SOCKET } from "./argv.ts";

/** Its sockets appear 7 to 11 ms after its start; a busy host may take longer. */
const START_TIMEOUT_MS = 10_000;
const FIRST_POLL_MS = 5;
const LAST_POLL_MS = 100;
/** A killed process is gone within milliseconds. */
const END_TIMEOUT_MS = 10_000;
/** It has 18 of its own, and one for each connection. Without descriptors left it fills its log with complaints, so there are plenty. */
const MAX_OPEN_FILES = 1024;
/** The thread that moves data. When it fails it ends alone: process and socket stay, and look as if nothing had happened. */
const WORKER = "vring_worker";

export interface BackendStart {
  readonly mark: ProcessMark;
  readonly name: string;
  readonly cid: number;
  /** The VM's folder is there. */
  readonly paths: VmPaths;
  readonly confinement: Confinement;
  readonly program: string;
  /** Told of its process as soon as there is one. */
  readonly started: (pid: number) => void;
}

export interface StartedBackend {
  readonly child: ChildProcess;
  readonly process: HypervisorProcess;
  /** Connected to it, for the hypervisor: hand its descriptor over, then destroy it. */
  readonly device: Socket;
}

/**
 * Starts it, and resolves once it waits for its hypervisor.
 *
 * Its sockets lie in a folder of its own user's, which is its working directory: so it needs no right to walk the path there. volantd uses a second link
 * to one of them, in a folder that only root enters, made before any guest has run: whatever a taken-over process puts into its own folder later, volantd
 * does not look there.
 *
 * @throws VolantError `not_ready` with its last words; the signal's reason
 */
export async function startBackend(start: BackendStart, signal: AbortSignal): Promise<StartedBackend> {
  const { mark, cid, paths, confinement, program } = start;
  const args = backendArguments(mark, cid);
  mkdirSync(paths.vsockFolder, { mode: 0o700 });
  chownSync(paths.vsockFolder, confinement.uid, confinement.gid);
  const append = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_EXCL;
  const log = openSync(paths.vsockLog, append, 0o600);
  let child: ChildProcess;
  try {
    const confined = { ...confinement, maxOpenFiles: MAX_OPEN_FILES };
    // Node gives a child every signal in its default way.
    const ignoring = ["--ignore-signal=XFSZ", program, ...args];
    const [command, ...rest] = confinedCommand(confined, "env", ignoring) as [string, ...string[]];
    child = spawn(command, rest, {
      cwd: paths.vsockFolder,
      detached: true,
      env: { PATH: SEARCH_PATH, LC_ALL: "C", RUST_LOG: "error" },
      stdio: ["ignore", "ignore", log],
    });
  } finally {
    closeSync(log);
  }
  child.unref();
  // Without a pid there was no child, which an event tells a moment later; the wait below ends by then.
  const failed = new Promise<Error>((tell) => child.once("error", tell));
  const { pid } = child;
  if (pid !== undefined) start.started(pid);
  const startTicks = pid === undefined ? undefined : startTicksOf(pid);
  if (pid === undefined) throw startFailure(start, `it can't be run (${(await failed).message})`);
  if (startTicks === undefined) throw startFailure(start, await lastWords(paths));
  const process = { vmId: mark.vmId, generation: mark.generation, pid, startTicks };
  try {
    const device = await connectDevice(start, process, signal);
    linkSync(join(paths.vsockFolder, CONNECT_SOCKET), paths.data);
    if (lstatSync(paths.data).isSocket()) return { child, process, device };
    device.destroy();
    throw startFailure(start, "it made no socket");
  } catch (error) {
    await endBackend(process);
    throw error;
  }
}

function startFailure({ name }: BackendStart, why: string): VolantError {
  return new VolantError("not_ready", `the vsock device of VM ${name} can't be served: ${why}`);
}

async function lastWords(paths: VmPaths): Promise<string> {
  const said = tailLines(await readTail(paths.vsockLog)).slice(-3);
  return `${BACKEND_PROGRAM} ended at its start: ${said.length === 0 ? "it said nothing" : said.join("; ")}`;
}

async function connectDevice(start: BackendStart, process: HypervisorProcess, signal: AbortSignal): Promise<Socket> {
  const { paths } = start;
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (let pollMs = FIRST_POLL_MS; ; pollMs = Math.min(pollMs * 2, LAST_POLL_MS)) {
    signal.throwIfAborted();
    if (!isRunning(process)) throw startFailure(start, await lastWords(paths));
    const device = isSocket(join(paths.vsockFolder, CONNECT_SOCKET))
      ? await tryConnect(join(paths.vsockFolder, DEVICE_SOCKET))
      : undefined;
    if (device !== undefined) return device;
    if (performance.now() > deadline) throw startFailure(start, `${BACKEND_PROGRAM} makes no socket`);
    await delay(pollMs);
  }
}

function isSocket(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true;
}

async function tryConnect(path: string): Promise<Socket | undefined> {
  if (!isSocket(path)) return undefined;
  const socket = createConnection(path);
  return await new Promise((resolve) => {
    socket.on("error", () => resolve(undefined));
    socket.once("connect", () => resolve(socket));
  });
}

/** Why a VM's backend carries no data, and never will again in this run of the VM; undefined when all is well. */
export function backendTrouble(backend: HypervisorProcess | undefined): string | undefined {
  if (backend === undefined || !isRunning(backend)) return `its ${BACKEND_PROGRAM} has ended`;
  try {
    const tasks = `/proc/${backend.pid}/task`;
    const names = readdirSync(tasks).map((task) => readFileSync(join(tasks, task, "comm"), "latin1").trimEnd());
    return names.includes(WORKER) ? undefined : `its ${BACKEND_PROGRAM} has failed and serves no data`;
  } catch {
    return `its ${BACKEND_PROGRAM} has ended`;
  }
}

/** SIGKILL, after checking that pid and start time still match; resolves once the process is gone. It has nothing to put in order. */
export async function endBackend(target: HypervisorProcess): Promise<void> {
  const deadline = performance.now() + END_TIMEOUT_MS;
  if (isRunning(target)) {
    try {
      process.kill(target.pid, "SIGKILL");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }
  for (let pollMs = FIRST_POLL_MS; isRunning(target); pollMs = Math.min(pollMs * 2, LAST_POLL_MS)) {
    if (performance.now() > deadline) {
      throw new VolantError("timeout", `the process ${target.pid} does not end, though it was killed`);
    }
    await delay(pollMs);
  }
}
