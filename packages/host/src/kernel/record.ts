/**
 * The installed kernel on disk. `<work dir>/kernel` is a symbolic link to `<work dir>/kernels/<id>`, so that one rename(2) switches from one
 * kernel to the next: a reader sees the old files or the new ones, never a mixture.
 */
import { constants, open } from "node:fs/promises";
import { join } from "node:path";
import { VolantError } from "@volant/contract";

export const KERNEL_RECORD_VERSION = 1;
export const KERNEL_RECORD_FILE = "kernel.json";
/** A record names at most a few dozen modules. */
const MAX_RECORD_BYTES = 1024 * 1024;

export interface KernelModuleRecord {
  /** In modinfo's form: `virtio_net`. */
  readonly name: string;
  /** Relative to the kernel's folder: `modules/006-virtio_net.ko`. */
  readonly file: string;
  readonly depends: readonly string[];
  readonly sha256: string;
}

/** What `kernel.json` says: which kernel this is, where it came from, and what lies beside it. */
export interface KernelRecord {
  readonly schema_version: typeof KERNEL_RECORD_VERSION;
  /** `uname -r` of the guest. */
  readonly release: string;
  /** The distribution's package and version; absent for a kernel that was given as a file. */
  readonly package?: string;
  readonly version?: string;
  readonly bzimage_sha256: string;
  /** Absent where the kernel could not be cut out of its image. */
  readonly vmlinux_sha256?: string;
  /** Why there is no vmlinux. */
  readonly vmlinux_missing?: string;
  /** Each after all that it depends on. */
  readonly modules: readonly KernelModuleRecord[];
}

/** Folder of the installed kernel: what VOLANT_KERNEL_BZIMAGE and VOLANT_KERNEL_VMLINUX point into by default. */
export function kernelFolder(workDir: string): string {
  return join(workDir, "kernel");
}

function isStringArray(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

function isModule(value: unknown): value is KernelModuleRecord {
  if (typeof value !== "object" || value === null) return false;
  const { name, file, depends, sha256 } = value as Partial<Record<keyof KernelModuleRecord, unknown>>;
  return (
    typeof name === "string" &&
    typeof file === "string" &&
    /^modules\/[A-Za-z0-9_.-]+\.ko$/.test(file) &&
    isStringArray(depends) &&
    typeof sha256 === "string"
  );
}

/** The record in `text`; undefined when it is none of ours or of another schema version. */
export function parseKernelRecord(text: string): KernelRecord | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const record = value as Partial<Record<keyof KernelRecord, unknown>>;
  if (record.schema_version !== KERNEL_RECORD_VERSION) return undefined;
  if (typeof record.release !== "string" || typeof record.bzimage_sha256 !== "string") return undefined;
  if (!Array.isArray(record.modules) || !record.modules.every(isModule)) return undefined;
  return value as KernelRecord;
}

/**
 * Reads the record of the installed kernel.
 *
 * @param folder see {@link kernelFolder}
 * @returns undefined when no kernel is installed there
 * @throws VolantError `not_ready` when there is a record that this version can't read
 */
export async function readKernelRecord(folder: string): Promise<KernelRecord | undefined> {
  const path = join(folder, KERNEL_RECORD_FILE);
  let text: string;
  try {
    await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const status = await file.stat();
    if (!status.isFile() || status.size > MAX_RECORD_BYTES) throw unreadable(path);
    text = await file.readFile("utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
  const record = parseKernelRecord(text);
  if (record === undefined) throw unreadable(path);
  return record;
}

function unreadable(path: string): VolantError {
  return new VolantError("not_ready", `${path} is no kernel record that this version of Volant can read`, {
    hint: "run: volar kernel install",
  });
}
