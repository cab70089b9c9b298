/** Starts a hypervisor: opens all that it may use, and hands it over to a process that has given up every privilege. */
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, constants, fstatSync, openSync, writeFileSync } from "node:fs";
import { VolantError } from "@volant/contract";
import { closeTap, openTap } from "@volant/netlink";
import type { LaunchSpec } from "../runtime.ts";
import { ListeningSocket, type VmPaths } from "../vm-folder.ts";
import { confinedCommand, type Confinement } from "./argv.ts";

/** The guest is more likely to be what the kernel ends when memory runs out than what serves all guests (proc_pid_oom_score_adj(5)). */
const OOM_SCORE_ADJ = 200;
/** Where setpriv, env and prlimit are looked for. */
export const SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export interface HypervisorStart {
  readonly spec: LaunchSpec;
  /** The VM's folder is there, and empty. */
  readonly paths: VmPaths;
  readonly confinement: Confinement;
  readonly program: string;
  readonly args: readonly string[];
}

/** Starts the exec chain that ends in QEMU. Everything that the process is given is closed here again, whatever happens. */
export async function startHypervisor(start: HypervisorStart): Promise<ChildProcess> {
  const { spec, paths } = start;
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
    const [command, ...rest] = confinedCommand(start.confinement, start.program, start.args) as [string, ...string[]];
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
