/**
 * A VM's folder, `<runtime dir>/<vm id>`: its sockets, its console, its hypervisor's last words. It belongs to root and no one else enters it; the hypervisor
 * is given descriptors. So nothing that a taken-over hypervisor does can put a link or a pipe where volantd looks for a file. What is read back is still opened
 * without following links, as a second line.
 */
import { closeSync, constants, lstatSync, mkdirSync, readdirSync, rmdirSync, unlinkSync } from "node:fs";
import { open, rm, type FileHandle } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { VolantError } from "@volant/contract";
import type { GuestSockets } from "./runtime.ts";

/** sockaddr_un holds 108 bytes with the closing NUL (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** VM ids have at most 9 digits: see `qemu/identity.ts`. */
const LONGEST_ID = "999999999";

export interface VmPaths extends GuestSockets {
  readonly folder: string;
  readonly qmp: string;
  readonly console: string;
  readonly hypervisorLog: string;
  /** Where connections to the guest's vsock device are asked for; there only where the VM has one. */
  readonly data: string;
  /** Working directory of what serves that device, and its own user's. */
  readonly vsockFolder: string;
  readonly vsockLog: string;
}

export function vmPaths(runtimeDir: string, vmId: number): VmPaths {
  const folder = join(runtimeDir, String(vmId));
  return {
    folder,
    // Asked for several times for each VM; join() looks at every character.
    qmp: `${folder}/qmp`,
    control: `${folder}/control`,
    stream: `${folder}/stream`,
    serial: `${folder}/serial`,
    console: `${folder}/console.log`,
    hypervisorLog: `${folder}/hypervisor.log`,
    data: `${folder}/data`,
    vsockFolder: `${folder}/vsock`,
    vsockLog: `${folder}/vsock.log`,
  };
}

/** Where volantd notes what it saw of one generation's end. */
export function exitRecordPath(paths: VmPaths, generation: number): string {
  return join(paths.folder, `exit-${generation}.json`);
}

/** @throws VolantError `invalid` when sockets in this runtime folder would have longer paths than a socket can have */
export function checkRuntimeDir(runtimeDir: string): void {
  const longest = join(runtimeDir, LONGEST_ID, "control");
  const excess = Buffer.byteLength(longest) - MAX_SOCKET_PATH_BYTES;
  if (excess <= 0) return;
  throw new VolantError(
    "invalid",
    `the runtime folder ${runtimeDir} has too long a path for the sockets in it, by ${excess} bytes`,
    { hint: "set VOLANT_RUNTIME_DIR (--runtime-dir) to a shorter path, such as /run/volant" },
  );
}

/** Makes a fresh folder for a VM, in place of what an earlier launch left. */
export async function makeVmFolder(paths: VmPaths): Promise<void> {
  await removeVmFolder(paths);
  mkdirSync(paths.folder, { mode: 0o700, recursive: true });
}

/**
 * Removes a VM's folder; absent already is no error. Where it holds files alone, that takes microseconds: a walk takes many turns of the event loop, and a
 * thousand VMs a thousand walks. The walk is for what else there is.
 */
export async function removeVmFolder({ folder }: VmPaths): Promise<void> {
  if (lstatSync(folder, { throwIfNoEntry: false }) === undefined) return;
  try {
    for (const name of readdirSync(folder)) unlinkSync(join(folder, name));
    rmdirSync(folder);
  } catch {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Absent already is no error, and costs none: one that is thrown takes longer than a look. */
export function removeFile(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return;
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

/** Ids of the VMs that have a folder; other entries are not ours and left out. */
export function listVmFolders(runtimeDir: string): number[] {
  let names: string[];
  try {
    // A folder of the host's own memory mostly: it takes less than the way to another thread and back.
    names = readdirSync(runtimeDir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  return names.filter((name) => /^[1-9]\d{0,8}$/.test(name)).map(Number);
}

/**
 * Opens a file for reading that might not be what it should be: no link is followed, no pipe waited for.
 *
 * @returns undefined when it is absent, or no regular file
 */
export async function openRegular(path: string, flags: number = constants.O_RDONLY): Promise<FileHandle | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ELOOP" || code === "ENXIO" || code === "ENOTDIR") return undefined;
    throw error;
  }
  if ((await file.stat()).isFile()) return file;
  await file.close();
  return undefined;
}

/** The descriptor of a socket that is open. Node has no public way to tell it. */
export function descriptorOf(socket: Socket): number {
  const fd = (socket as unknown as { readonly _handle?: { readonly fd?: number } })._handle?.fd;
  if (fd === undefined || fd < 0) throw new Error("this Node does not tell a socket's descriptor");
  return fd;
}

/**
 * A listening Unix socket that is made here and used by another process. Nothing here accepts what comes meanwhile: who connects waits for that process, or is
 * told that there is nobody once this end is closed without it.
 */
export class ListeningSocket {
  /** The descriptor, to be passed on to a child. */
  readonly fd: number;

  static async bind(path: string): Promise<ListeningSocket> {
    // Loaded when it is used: never off Linux.
    const { listenUnix } = await import("@volant/netlink");
    return new ListeningSocket(listenUnix(path));
  }

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** Lets go of the descriptor. The socket lives on in the process that has it. */
  close(): void {
    closeSync(this.fd);
  }
}
