/** Packing a file or a directory of this machine into a tar archive. Links are not followed below the path that was asked for. */
import { constants, type Stats } from "node:fs";
import { lstat, open, readdir, readlink, realpath, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { VolantError } from "@volant/contract/errors";
import { localFailure } from "./local-failure.ts";
import { encodeTarEntry, paddingOf, TAR_END, type TarKind } from "./tar/header.ts";

const PIECE_BYTES = 64 * 1024;

export interface PackOptions {
  /** Called with the count of bytes of files packed so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
  /** Called with the path of what is no file, directory or symbolic link. */
  readonly onLeftOut?: ((path: string) => void) | undefined;
}

export interface LocalSource {
  readonly path: string;
  /** What it is called in the archive. */
  readonly name: string;
  readonly stats: Stats;
}

/** Looks at what is to be packed. @throws VolantError `not_found`, `forbidden`, `wrong_state` */
export async function openSource(path: string): Promise<LocalSource> {
  try {
    const real = await realpath(path);
    const stats = await stat(real);
    if (!stats.isFile() && !stats.isDirectory()) {
      throw new VolantError("wrong_state", `${path} is neither a file nor a directory`);
    }
    if (!stats.isDirectory() && path.endsWith("/")) throw new VolantError("wrong_state", `${path} is no directory`);
    return { path: real, name: basename(resolve(path)) || "root", stats };
  } catch (error) {
    throw localFailure(path, error);
  }
}

/** The archive, as it is read. @throws VolantError what can't be read */
export async function* packSource(source: LocalSource, options: PackOptions = {}): AsyncGenerator<Uint8Array> {
  const count = { bytes: 0 };
  yield* pack(source, options, count);
  yield TAR_END;
}

async function* pack(source: LocalSource, options: PackOptions, count: { bytes: number }): AsyncGenerator<Uint8Array> {
  const { path, name, stats } = source;
  const head = (kind: TarKind, size: number, target = "") =>
    encodeTarEntry({ name, kind, mode: stats.mode & 0o7777, mtime: stats.mtimeMs / 1000, size, target });
  try {
    if (stats.isDirectory()) {
      yield head("directory", 0);
      for (const child of (await readdir(path)).toSorted()) {
        const below = join(path, child);
        yield* pack({ path: below, name: `${name}/${child}`, stats: await lstat(below) }, options, count);
      }
    } else if (stats.isSymbolicLink()) yield head("symlink", 0, await readlink(path));
    else if (stats.isFile()) yield* packFile(path, head, options, count);
    else options.onLeftOut?.(path);
  } catch (error) {
    throw localFailure(path, error);
  }
}

async function* packFile(
  path: string,
  head: (kind: TarKind, size: number) => Uint8Array,
  options: PackOptions,
  count: { bytes: number },
): AsyncGenerator<Uint8Array> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const { size } = await file.stat();
  yield head("file", size);
  for (let left = size; left > 0;) {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(Math.min(left, PIECE_BYTES)));
    // One that has grown is cut.
    if (bytesRead === 0) throw new VolantError("wrong_state", `${path} became shorter while it was read`);
    left -= bytesRead;
    count.bytes += bytesRead;
    options.onProgress?.(count.bytes);
    yield buffer.subarray(0, bytesRead);
  }
  yield Buffer.alloc(paddingOf(size));
}
