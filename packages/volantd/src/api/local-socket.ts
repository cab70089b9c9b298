/**
 * The Unix socket beside TCP: whoever may open it is root, or the user that volantd runs as. The kernel says so by the file's mode, so no key is asked for.
 */
import { once } from "node:events";
import { chmodSync, lstatSync, mkdirSync, renameSync, rmSync, unlinkSync, type Stats } from "node:fs";
import { connect, type Server } from "node:net";
import { basename, dirname, join } from "node:path";
import { VolantError } from "@volant/contract";

/** sun_path holds 108 bytes with the closing zero (unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107;

/** A folder beside it, in which the socket is made before it gets its name. One that a volantd left behind that was killed is made anew. */
function passingFolder(path: string): string {
  return join(dirname(path), `.${basename(path)}.new`);
}

function lookAt(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** Whether a program answers at the socket. @throws Error what connect(2) says otherwise */
async function isAnswered(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Nobody holds it any more, or it went meanwhile.
    if (code === "ECONNREFUSED" || code === "ENOENT") return false;
    // Its holder has more waiting than it takes.
    if (code === "EAGAIN") return true;
    throw error;
  } finally {
    socket.destroy();
  }
}

/** @throws VolantError `in_use` when another program has the place, `invalid` for a path that is too long */
async function checkPlace(path: string): Promise<void> {
  const needed = Buffer.byteLength(join(passingFolder(path), "s"));
  if (Math.max(needed, Buffer.byteLength(path)) > MAX_SOCKET_PATH_BYTES) {
    throw new VolantError("invalid", `VOLANT_API_SOCKET is ${path}, which is too long a path for a socket`, {
      hint: `a socket's path has at most ${MAX_SOCKET_PATH_BYTES} bytes`,
    });
  }
  const found = lookAt(path);
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new VolantError(
      "in_use",
      `the API's socket can't be ${path}: there is a file of that name, which is no socket`,
      {
        hint: "remove it, or name another path with VOLANT_API_SOCKET",
      },
    );
  }
  if (await isAnswered(path)) {
    throw new VolantError("in_use", `the API cannot listen on ${path}: a program answers there already`, {
      hint: "is volantd running already? Otherwise set VOLANT_API_SOCKET to another path, or to off",
    });
  }
}

/** Gives the socket up. */
export type ReleaseSocket = () => void;

/**
 * Listens on a Unix socket that only its owner can open. One that nobody answers at is replaced; it is never there with any other mode.
 *
 * @returns what removes it, if it is still the same one, when the server is closed
 * @throws VolantError `in_use`, `invalid`, `not_ready`
 */
export async function listenLocally(server: Server, path: string): Promise<ReleaseSocket> {
  try {
    await checkPlace(path);
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    // bind(2) takes the mode from the umask, which is the whole process's: in a folder that nobody else enters it does not matter.
    const folder = passingFolder(path);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { mode: 0o700 });
    try {
      const passing = join(folder, "s");
      server.listen(passing);
      await once(server, "listening");
      chmodSync(passing, 0o600);
      renameSync(passing, path);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  } catch (error) {
    server.close();
    if (error instanceof VolantError) throw error;
    throw new VolantError("not_ready", `the API cannot listen on ${path}: ${(error as Error).message}`, {
      cause: error,
      hint: "name another path with VOLANT_API_SOCKET, or set it to off",
    });
  }
  const made = lookAt(path);
  return () => {
    const found = lookAt(path);
    if (found !== undefined && found.ino === made?.ino && found.dev === made.dev) unlinkSync(path);
  };
}
