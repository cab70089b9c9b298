/** Copying between this machine and a guest. */
import { posix } from "node:path";
import type { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { VolantError } from "@volant/contract/errors";
import type { FileClient } from "../files.ts";
import { openSource, packSource } from "./pack.ts";
import { TarReader } from "./tar/reader.ts";
import { checkRemarks, unpack, type Unpacked } from "./unpack.ts";

export interface CopyOptions {
  /** Called with the count of bytes copied so far. */
  readonly onProgress?: ((bytes: number) => void) | undefined;
  /** Called with what was left out, as a sentence. Names in it may be the guest's: not fit for a terminal. */
  readonly onLeftOut?: ((sentence: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Copied {
  /** Files and symbolic links. */
  readonly files: number;
  readonly bytes: number;
}

/**
 * Copies a file or a directory into a guest: into `path` where that is a directory there, else under that name. It is root's there.
 *
 * @throws VolantError what can't be read here or written there
 */
export async function copyToGuest(
  files: FileClient,
  { from, vm, path }: { readonly from: string; readonly vm: string; readonly path: string },
  { onProgress, onLeftOut, signal }: CopyOptions = {},
): Promise<Copied> {
  const source = await openSource(from);
  const archive = packSource(source, {
    onProgress,
    onLeftOut: (left) => onLeftOut?.(`${left}, which is no file, directory or symbolic link`),
  });
  return files.write(vm, path, { archive }, { signal });
}

/**
 * Copies a file or a directory out of a guest: into `to` where that is a directory, else under that name.
 *
 * @throws VolantError what can't be read there or written here
 */
export async function copyFromGuest(
  files: FileClient,
  { vm, path, to }: { readonly vm: string; readonly path: string; readonly to: string },
  { onProgress, onLeftOut, signal }: CopyOptions = {},
): Promise<Unpacked> {
  const archive = await files.read(vm, path, { signal });
  // A path without a name is the whole guest.
  const name = posix.basename(posix.normalize(path)) || vm;
  return unpack(archive as unknown as AsyncIterable<Uint8Array>, to, { name, onProgress, onLeftOut });
}

/** Writes one file of a guest to a stream, which stays open. @throws VolantError `wrong_state` for a directory */
export async function readGuestFile(
  files: FileClient,
  { vm, path, to }: { readonly vm: string; readonly path: string; readonly to: Writable },
  { onProgress, signal }: CopyOptions = {},
): Promise<void> {
  const archive = await files.read(vm, path, { signal });
  const reader = new TarReader(archive as unknown as AsyncIterable<Uint8Array>);
  try {
    const entry = await reader.next();
    if (entry?.kind === "directory") throw new VolantError("wrong_state", `${path} is a directory in the guest`);
    if (entry?.kind === "file") {
      let bytes = 0;
      const body = reader.body();
      async function* counted(): AsyncGenerator<Uint8Array> {
        for await (const piece of body) {
          bytes += piece.length;
          onProgress?.(bytes);
          yield piece;
        }
      }
      await pipeline(counted, to, { end: false });
    }
    while ((await reader.next()) !== undefined);
    checkRemarks(reader);
    if (entry?.kind !== "file") throw new VolantError("guest_unreachable", `the guest sent no file for ${path}`);
  } finally {
    await reader.close();
  }
}
