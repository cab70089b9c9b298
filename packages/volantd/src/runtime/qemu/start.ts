/** Starts a hypervisor: opens all that it may use, and hands it over to a process that has given up every privilege. */
import { closeSync, constants, fchmodSync, fchownSync, fstatSync, openSync } from "node:fs";
import type { Socket } from "node:net";
import { VolantError } from "@volant/contract";
import type { LaunchSpec } from "../runtime.ts";
import { descriptorOf, ListeningSocket, type VmPaths } from "../vm-folder.ts";
import { confinedCommand, type Confinement, IGNORED_SIGNALS } from "./argv.ts";
import { closeTap, openTapFor } from "./tap.ts";

/** An empty standard input. */
const NOTHING = "/dev/null";
/** Where programs of the exec chain are looked for that are not the installation's own. */
export const SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export interface HypervisorStart {
  readonly spec: LaunchSpec;
  /** The VM's folder is there, and empty. */
  readonly paths: VmPaths;
  readonly confinement: Confinement;
  readonly program: string;
  readonly args: readonly string[];
  /** Connected to the backend of its vsock device, where it has one. Closed here, too. */
  readonly vsock?: Socket | undefined;
}

/**
 * Starts the exec chain that ends in QEMU, and gives its pid: a child of this process, to be collected when it ends. Everything that the process is given is
 * closed here again, whatever happens.
 *
 * @throws VolantError `not_supported` off Linux: what confines a hypervisor is Linux's own
 */
export async function startHypervisor(start: HypervisorStart): Promise<number> {
  if (process.platform !== "linux") {
    throw new VolantError("not_supported", `VMs run on Linux hosts only so far, and this is ${process.platform}`);
  }
  // Loaded when it is used: never off Linux.
  const { startChild } = await import("@volant/netlink");
  const { spec, paths } = start;
  const { elfPath, bzImagePath } = spec.kernel;
  const descriptors: number[] = [];
  const sockets: ListeningSocket[] = [];
  const { vsock } = start;
  let tap: number | undefined;
  const opened = (fd: number): number => {
    descriptors.push(fd);
    return fd;
  };
  const append = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_EXCL;
  try {
    const files = [
      opened(openImage(elfPath ?? bzImagePath, "kernel", "run: volar kernel install")),
      opened(openImage(spec.initrdPath, "boot image")),
      opened(openSync(paths.console, append, 0o600)),
    ];
    const log = opened(openSync(paths.hypervisorLog, append, 0o600));
    const nothing = opened(openSync(NOTHING, constants.O_RDONLY));
    for (const path of [paths.qmp, paths.control, paths.stream, paths.serial]) {
      sockets.push(await ListeningSocket.bind(path));
    }
    if (spec.network !== undefined) tap = await openTapFor(spec.name, spec.network.tap);
    const [command, ...rest] = confinedCommand(start.confinement, start.program, start.args) as [string, ...string[]];
    return await startChild({
      path: command,
      args: [command, ...rest],
      env: { PATH: SEARCH_PATH, LC_ALL: "C" },
      workingDirectory: "/",
      ownSession: true,
      ignoredSignals: IGNORED_SIGNALS,
      files: [
        nothing,
        log,
        log,
        ...files,
        ...sockets.map((socket) => socket.fd),
        ...(tap !== undefined ? [tap] : vsock === undefined ? [] : [nothing]),
        ...(vsock === undefined ? [] : [await openMemory(start, descriptors), descriptorOf(vsock)]),
      ],
    }).catch((error: unknown) => {
      throw startFailure(error, command);
    });
  } finally {
    for (const socket of sockets) socket.close();
    vsock?.destroy();
    for (const fd of descriptors) closeSync(fd);
    if (tap !== undefined) await closeTap(tap);
  }
}

/** The guest's memory, for a hypervisor that shares it. It opens it anew, so it has to be its user's. */
async function openMemory({ spec, confinement }: HypervisorStart, opened: number[]): Promise<number> {
  // Loaded when it is used: never off Linux.
  const { createMemoryFile } = await import("@volant/netlink");
  const fd = createMemoryFile(`volant-vm-${spec.vmId}`, spec.memoryMib * 1024 * 1024);
  opened.push(fd);
  fchmodSync(fd, 0o600);
  fchownSync(fd, confinement.uid, confinement.gid);
  return fd;
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

/** Why a child did not come to be. */
function startFailure(error: unknown, command: string): unknown {
  if (!(error instanceof Error) || error.name !== "NetlinkError") return error;
  const { code } = error as NodeJS.ErrnoException;
  return new VolantError("not_ready", `${command} can't be started (${code})`, {
    cause: error,
    ...(code === "ENOENT" ? { hint: "install Volant anew, or run: cargo build --release --locked, in kestrel/" } : {}),
  });
}
