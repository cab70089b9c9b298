/**
 * The files that a manifest, or a command line, names: where they are, whether they are what they should be, and the manifest as volantd gets it, with absolute
 * addresses and checksums.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { Manifest } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import { fileFailure } from "./file-failure.ts";
import { download, type WebFile } from "./web-files.ts";

interface NamedFile {
  /** What names it, for sentences. */
  readonly field: string;
  readonly url: string;
  readonly checksum: string | undefined;
}

/** Where a document was read that names files: a folder of this machine, or an address of the web. What it names is meant from there. */
export type Origin = { readonly folder: string } | { readonly webAddress: string };

export interface FoundFile extends NamedFile {
  /** Absolute: file://, http:// or https://. */
  readonly address: string;
}

export interface CheckedFile extends FoundFile {
  /** Checksum of the content as it is. */
  readonly actual: string;
  readonly sizeBytes: number;
  /** The content, from its beginning. */
  readonly read: () => AsyncIterable<Uint8Array>;
}

type OnProgress = (percent: number) => void;

/** Whether an address is one of the web. */
export function isWebAddress(url: string): boolean {
  return /^https?:\/\//i.test(url);
}

/** Path of a manifest's address, or undefined where it is http(s) and nothing to be found here. Pure. @throws VolantError `invalid` */
export function localPath(url: string, directory: string): string | undefined {
  if (isWebAddress(url)) return undefined;
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

/** The absolute address of what a document names. Pure. @throws VolantError `invalid`; also where a document of the web names a file of this machine */
export function absoluteAddress(url: string, origin: Origin): string {
  if ("folder" in origin) {
    const path = localPath(url, origin.folder);
    return path === undefined ? url : pathToFileURL(path).href;
  }
  const address = URL.canParse(url, origin.webAddress) ? new URL(url, origin.webAddress).href : "";
  if (isWebAddress(address)) return address;
  throw new VolantError(
    "invalid",
    `${origin.webAddress} names ${JSON.stringify(url)}: what comes from the web may not name files of this machine`,
  );
}

function namedFiles(manifest: Manifest): NamedFile[] {
  const { initramfs, rootfs, disks = [] } = manifest;
  const named = [
    ...(initramfs === undefined ? [] : [{ field: "initramfs", url: initramfs.url, checksum: initramfs.checksum }]),
    ...(rootfs === undefined ? [] : [{ field: "rootfs", url: rootfs.url, checksum: rootfs.checksum }]),
    ...disks.map((disk) => ({ field: `disk "${disk.name}"`, url: disk.source, checksum: disk.checksum })),
  ];
  return named.map((file) => ({ ...file, field: `${file.field} of the manifest` }));
}

/** The files that a manifest names. Pure. @throws VolantError `invalid` */
export function findFiles(manifest: Manifest, origin: Origin): FoundFile[] {
  return namedFiles(manifest).map((file) => ({ ...file, address: absoluteAddress(file.url, origin) }));
}

/** The manifest with each file's absolute address and checksum in place of what was written. Pure. */
export function withFiles(manifest: Manifest, files: readonly CheckedFile[]): Manifest {
  const found = new Map(files.map(({ field, address, actual }) => [field, { url: address, checksum: actual }]));
  const { initramfs, rootfs, disks } = manifest;
  return {
    ...manifest,
    ...(initramfs === undefined ? {} : { initramfs: { ...initramfs, ...found.get("initramfs of the manifest") } }),
    ...(rootfs === undefined ? {} : { rootfs: { ...rootfs, ...found.get("rootfs of the manifest") } }),
    ...(disks === undefined
      ? {}
      : {
          disks: disks.map((disk) => {
            const file = found.get(`disk "${disk.name}" of the manifest`);
            return file === undefined ? disk : { ...disk, source: file.url, checksum: file.checksum };
          }),
        }),
  };
}

/** The absolute address of the manifest's OpenAPI document; undefined where the manifest says something else of it. Pure. @throws VolantError `invalid` */
export function openApiAddress({ openapi = "" }: Manifest, origin: Origin): string | undefined {
  if (openapi === "" || openapi.startsWith("/") || openapi.trimStart().startsWith("{")) return undefined;
  if (/^(?!file:)[a-z][a-z0-9+.-]*:/i.test(openapi)) return undefined;
  return absoluteAddress(openapi, origin);
}

/** Bytes, with the share that was read so far told as they come. */
export async function* readWithProgress(
  { read, sizeBytes }: Pick<CheckedFile, "read" | "sizeBytes">,
  onProgress: OnProgress,
): AsyncGenerator<Uint8Array> {
  let done = 0;
  for await (const part of read()) {
    done += part.length;
    onProgress(sizeBytes === 0 ? 100 : Math.floor((done / sizeBytes) * 100));
    yield part;
  }
}

/** A file's own name. */
export function fileName({ address }: Pick<FoundFile, "address">): string {
  return basename(new URL(address).pathname);
}

async function openLocal(file: FoundFile): Promise<WebFile> {
  const path = fileURLToPath(file.address);
  const found = await stat(path).catch((error: unknown) => {
    throw fileFailure(`${path} (${file.field})`, error);
  });
  if (!found.isFile()) throw new VolantError("invalid", `${path} (${file.field}) is not a regular file`);
  return { sizeBytes: found.size, read: () => createReadStream(path) as AsyncIterable<Uint8Array> };
}

/**
 * Gets a file, reads it once and compares it with the checksum that is given for it.
 *
 * @throws VolantError `invalid` when it is not there or no regular file, `checksum_mismatch`, `not_ready` when the web does not answer
 */
export async function checkFile(file: FoundFile, onProgress: OnProgress): Promise<CheckedFile> {
  const content = isWebAddress(file.address) ? await download(file.address, onProgress) : await openLocal(file);
  const hash = createHash("sha256");
  try {
    for await (const part of readWithProgress(content, onProgress)) hash.update(part);
  } catch (error) {
    throw fileFailure(file.address, error);
  }
  const actual = `sha256:${hash.digest("hex")}`;
  if (file.checksum !== undefined && file.checksum !== actual) {
    throw new VolantError(
      "checksum_mismatch",
      `${fileName(file)} (${file.field}) has the checksum ${actual} and not ${file.checksum}, which was given for it`,
      { hint: `the file is ${file.address}: get it again, or correct the checksum` },
    );
  }
  return { ...file, ...content, actual };
}
