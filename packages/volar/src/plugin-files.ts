/**
 * The files that a manifest names: where they are, whether they are what the manifest says, and the manifest as volantd gets it, with absolute
 * addresses and checksums. Paths are resolved against the manifest's own folder.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { Manifest } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import { fileFailure } from "./file-failure.ts";

interface NamedFile {
  /** Field of the manifest, for sentences. */
  readonly field: string;
  readonly url: string;
  readonly checksum: string | undefined;
}

export interface LocalFile extends NamedFile {
  readonly path: string;
}

export interface CheckedFile extends LocalFile {
  /** Checksum of the content as it is on disk. */
  readonly actual: string;
  readonly sizeBytes: number;
}

/** Path of a manifest's address, or undefined where it is http(s) and nothing to be found here. Pure. @throws VolantError `invalid` */
export function localPath(url: string, directory: string): string | undefined {
  if (/^https?:\/\//i.test(url)) return undefined;
  if (/^file:/i.test(url)) {
    try {
      return fileURLToPath(url);
    } catch (error) {
      throw new VolantError("invalid", `${JSON.stringify(url)} is no file of this machine`, { cause: error });
    }
  }
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(url)) {
    throw new VolantError(
      "invalid",
      `${JSON.stringify(url)} is neither a path nor a file://, http:// or https:// address`,
    );
  }
  return resolve(directory, url);
}

function namedFiles(manifest: Manifest): NamedFile[] {
  const { initramfs, rootfs, disks = [] } = manifest;
  return [
    ...(initramfs === undefined ? [] : [{ field: "initramfs", url: initramfs.url, checksum: initramfs.checksum }]),
    ...(rootfs === undefined ? [] : [{ field: "rootfs", url: rootfs.url, checksum: rootfs.checksum }]),
    ...disks.map((disk) => ({ field: `disk "${disk.name}"`, url: disk.source, checksum: disk.checksum })),
  ];
}

/** The manifest's files that are on this machine. Pure. */
export function localFiles(manifest: Manifest, directory: string): LocalFile[] {
  return namedFiles(manifest).flatMap((file) => {
    const path = localPath(file.url, directory);
    return path === undefined ? [] : [{ ...file, path }];
  });
}

/** The manifest with each local file's absolute address and checksum in place of what was written. Pure. */
export function withFiles(manifest: Manifest, files: readonly CheckedFile[]): Manifest {
  const found = new Map(
    files.map((file) => [file.field, { url: pathToFileURL(file.path).href, checksum: file.actual }]),
  );
  const { initramfs, rootfs, disks } = manifest;
  return {
    ...manifest,
    ...(initramfs === undefined ? {} : { initramfs: { ...initramfs, ...found.get("initramfs") } }),
    ...(rootfs === undefined ? {} : { rootfs: { ...rootfs, ...found.get("rootfs") } }),
    ...(disks === undefined
      ? {}
      : {
          disks: disks.map((disk) => {
            const file = found.get(`disk "${disk.name}"`);
            return file === undefined ? disk : { ...disk, source: file.url, checksum: file.checksum };
          }),
        }),
  };
}

/** A file's bytes, with the share that was read so far told as they come. */
export async function* readWithProgress(
  file: { readonly path: string; readonly sizeBytes: number },
  onProgress: (percent: number) => void,
): AsyncGenerator<Uint8Array> {
  let read = 0;
  for await (const part of createReadStream(file.path) as AsyncIterable<Buffer>) {
    read += part.length;
    onProgress(file.sizeBytes === 0 ? 100 : Math.floor((read / file.sizeBytes) * 100));
    yield part;
  }
}

/**
 * Reads a file once and compares it with the checksum that the manifest gives.
 *
 * @throws VolantError `invalid` when it is not there or no regular file, `checksum_mismatch`
 */
export async function checkFile(file: LocalFile, onProgress: (percent: number) => void): Promise<CheckedFile> {
  const found = await stat(file.path).catch((error: unknown) => {
    throw fileFailure(`${file.path} (${file.field} of the manifest)`, error);
  });
  if (!found.isFile()) {
    throw new VolantError("invalid", `${file.path} (${file.field} of the manifest) is not a regular file`);
  }
  const hash = createHash("sha256");
  const content = readWithProgress({ path: file.path, sizeBytes: found.size }, onProgress);
  try {
    for await (const part of content) hash.update(part);
  } catch (error) {
    throw fileFailure(file.path, error);
  }
  const actual = `sha256:${hash.digest("hex")}`;
  if (file.checksum !== undefined && file.checksum !== actual) {
    throw new VolantError(
      "checksum_mismatch",
      `${basename(file.path)} (${file.field} of the manifest) has the checksum ${actual} and not ${file.checksum}, which the manifest gives`,
      { hint: `the file is ${file.path}: get it again, or correct the manifest` },
    );
  }
  return { ...file, actual, sizeBytes: found.size };
}
