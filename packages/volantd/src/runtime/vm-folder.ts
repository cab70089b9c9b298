/**
 * A VM's folder, `<runtime dir>/<vm id>`: its sockets, its console, its hypervisor's last words. It belongs to root and no one else enters it; the hypervisor
 * is given descriptors. So nothing that a taken-over hypervisor does can put a link or a pipe where volantd looks for a file. What is read back is still opened
 * without following links, as a second line.
 */
import { constants, linkSync } from "node:fs";
import { mkdir, open, readdir, rm, type FileHandle } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { VolantError } from "@volant/contract";
import type { GuestSockets } from "./runtime.ts";

/** sockaddr_un holds 108 bytes with the closing NUL (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107;

/** VM ids have at most 9 digits: see `qemu/identity.ts`. */
const LONGEST_ID = "999999999";
/** A socket is bound under a name of its own first: see {@link ListeningSocket}. */
const BINDING_SUFFIX = ".new";

export interface VmPaths extends GuestSockets {
  readonly folder: string;
  readonly qmp: string;
  readonly console: string;
  readonly hypervisorLog: string;
}

export function vmPaths(runtimeDir: string, vmId: number): VmPaths {
  const folder = join(runtimeDir, String(vmId));
  return {
    folder,
    qmp: join(folder, "qmp"),
    control: join(folder, "control"),
    stream: join(folder, "stream"),
    serial: join(folder, "serial"),
    console: join(folder, "console.log"),
    hypervisorLog: join(folder, "hypervisor.log"),
  };
}

/** Where volantd notes what it saw of one generation's end. */
export function exitRecordPath(paths: VmPaths, generation: number): string {
  return join(paths.folder, `exit-${generation}.json`);
}

/** @throws VolantError `invalid` when sockets in this runtime folder would have longer paths than a socket can have */
export function checkRuntimeDir(runtimeDir: string): void {
  const longest = `${join(runtimeDir, LONGEST_ID, "control")}${BINDING_SUFFIX}`;
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
  await rm(paths.folder, { recursive: true, force: true });
  await mkdir(paths.folder, { mode: 0o700, recursive: true });
}

/** Ids of the VMs that have a folder; other entries are not ours and left out. */
export async function listVmFolders(runtimeDir: string): Promise<number[]> {
  let names: string[];
  try {
    names = await readdir(runtimeDir);
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

/**
 * A listening Unix socket that is made here and used by another process. Node unlinks a socket's path when it closes its end, so the socket is bound under
 * a name for the purpose, and gets its real name as a second link.
 */
export class ListeningSocket {
  readonly #server: Server;
  readonly #path: string;

  static async bind(path: string): Promise<ListeningSocket> {
    const server = createServer();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once("error", reject);
    server.listen(path + BINDING_SUFFIX, resolve);
    await promise;
    return new ListeningSocket(server, path);
  }

  private constructor(server: Server, path: string) {
    this.#server = server;
    this.#path = path;
  }

  /** The descriptor, to be passed on in a child's `stdio`. Node has no public way to tell it. */
  get fd(): number {
    const fd = (this.#server as unknown as { readonly _handle?: { readonly fd?: number } })._handle?.fd;
    if (fd === undefined || fd < 0) throw new Error("this Node does not tell a listening socket's descriptor");
    return fd;
  }

  /**
   * Gives the socket its name. From now until {@link close} a client could be answered by this process: call both, and what passes the descriptor on,
   * within one turn of the event loop.
   */
  publish(): void {
    linkSync(this.#path + BINDING_SUFFIX, this.#path);
  }

  /** Lets go of the descriptor. The socket lives on in the process that has it. */
  close(): void {
    this.#server.close();
  }
}
