/** Lays out a guest kernel for volantd: from the distribution's package, or from a file. */
import { createHash, randomBytes } from "node:crypto";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { join, resolve } from "node:path";
import { VolantError } from "@volant/contract";
import { fetchKernelPackages, findKernelPackages } from "./apt.ts";
import { bzImageRelease, extractElf, isBzImage } from "./bzimage.ts";
import { loadOrder } from "./module.ts";
import { readModules, type ModuleFile } from "./module-files.ts";
import {
  KERNEL_RECORD_FILE,
  KERNEL_RECORD_VERSION,
  kernelFolder,
  readKernelRecord,
  type KernelRecord,
} from "./record.ts";
import { TRANSPORT_MODULES, WANTED_MODULES } from "./wanted-modules.ts";

/** More than any distribution's compressed kernel (about 15 MB). */
const MAX_IMAGE_BYTES = 128 * 1024 * 1024;
/** A half-made folder of that age was left by an install that died. */
const STALE_AFTER_MS = 60 * 60_000;

export type KernelSource =
  | { readonly kind: "distribution" }
  /** `modulesDir` holds the kernel's modules at any depth, as /lib/modules/<release> does; without it all drivers must be built in. */
  | { readonly kind: "file"; readonly path: string; readonly modulesDir?: string };

export interface InstallKernelOptions {
  /** VOLANT_WORK_DIR. */
  readonly workDir: string;
  readonly source: KernelSource;
  /** Called with one line for each thing that takes a moment. */
  readonly onProgress?: (line: string) => void;
}

export interface InstalledKernel {
  /** False when this very kernel was installed already. */
  readonly changed: boolean;
  readonly record: KernelRecord;
  readonly folder: string;
  readonly bzImagePath: string;
  readonly elfPath?: string;
}

interface KernelParts {
  readonly image: Uint8Array;
  readonly release: string;
  readonly modules: ReadonlyMap<string, ModuleFile>;
  readonly origin: { readonly package?: string; readonly version?: string };
}

function sha256(content: Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

function result(changed: boolean, folder: string, record: KernelRecord): InstalledKernel {
  const paths = { folder, bzImagePath: join(folder, "bzImage") };
  if (record.vmlinux_sha256 === undefined) return { changed, record, ...paths };
  return { changed, record, ...paths, elfPath: join(folder, "vmlinux") };
}

async function readImage(path: string): Promise<Uint8Array> {
  let size: number;
  try {
    const status = await stat(path);
    if (!status.isFile()) throw new VolantError("invalid", `the kernel ${path} is no file`);
    size = status.size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw new VolantError("invalid", `the kernel ${path} does not exist`, { cause: error });
  }
  if (size > MAX_IMAGE_BYTES) throw new VolantError("invalid", `the kernel ${path} is too large to be one`);
  return await readFile(path);
}

function releaseOf(image: Uint8Array, path: string): string {
  const release = bzImageRelease(image);
  if (release !== undefined) return release;
  const problem = isBzImage(image) ? "does not name its release" : "is no x86 bzImage";
  throw new VolantError("invalid", `the kernel ${path} ${problem}`);
}

/** Adds content and its folder to the disk for good: a rename must never get there before what it points to. */
async function writeDurably(path: string, content: Uint8Array | string): Promise<void> {
  // The hypervisor opens kernels anew under a user of its own, so others may read them.
  await using file = await open(path, "wx", 0o644);
  await file.writeFile(content);
  await file.chmod(0o644);
  await file.sync();
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

/** Writes all of a kernel's files into a new folder. */
async function layOut(folder: string, parts: KernelParts): Promise<KernelRecord> {
  const elf = extractElf(parts.image);
  await chmod(folder, 0o755);
  await mkdir(join(folder, "modules"), { mode: 0o755 });
  await writeDurably(join(folder, "bzImage"), parts.image);
  if (elf.ok) await writeDurably(join(folder, "vmlinux"), elf.elf);
  const modules = loadOrder([...WANTED_MODULES], parts.modules).map((name, index) => {
    const module = parts.modules.get(name) as ModuleFile;
    return { module, file: `modules/${String(index).padStart(3, "0")}-${name}.ko` };
  });
  for (const { module, file } of modules) await writeDurably(join(folder, file), module.content);
  const record: KernelRecord = {
    schema_version: KERNEL_RECORD_VERSION,
    release: parts.release,
    ...parts.origin,
    bzimage_sha256: sha256(parts.image),
    ...(elf.ok ? { vmlinux_sha256: sha256(elf.elf) } : { vmlinux_missing: elf.reason }),
    modules: modules.map(({ module, file }) => ({
      name: module.name,
      file,
      depends: module.depends,
      sha256: sha256(module.content),
    })),
  };
  await writeDurably(join(folder, KERNEL_RECORD_FILE), `${JSON.stringify(record, null, 2)}\n`);
  await syncFolder(join(folder, "modules"));
  await syncFolder(folder);
  return record;
}

/** Points `<work dir>/kernel` at a laid-out kernel in one rename, and removes the kernels that it no longer points at. */
async function switchTo(workDir: string, id: string): Promise<void> {
  const link = kernelFolder(workDir);
  const existing = await lstat(link).catch(() => undefined);
  if (existing !== undefined && !existing.isSymbolicLink()) {
    throw new VolantError("exists", `${link} was not made by "volar kernel install", and is left alone`, {
      hint: "move it away, or give another work folder with --work-dir",
    });
  }
  const fresh = `${link}.${randomBytes(6).toString("hex")}`;
  await symlink(join("kernels", id), fresh);
  try {
    await rename(fresh, link);
  } catch (error) {
    await rm(fresh, { force: true });
    throw error;
  }
  await syncFolder(workDir);
  const kernels = join(workDir, "kernels");
  for (const name of await readdir(kernels)) {
    if (name === id) continue;
    // Another install may be at work in a folder of its own.
    const age = Date.now() - (await stat(join(kernels, name)).catch(() => ({ mtimeMs: 0 }))).mtimeMs;
    if (name.startsWith(".new-") && age < STALE_AFTER_MS) continue;
    await rm(join(kernels, name), { recursive: true, force: true });
  }
}

async function partsFromDistribution(
  source: { readonly image: string; readonly version: string; readonly modules?: string },
  folder: string,
  onProgress: (line: string) => void,
): Promise<KernelParts> {
  const root = await fetchKernelPackages(source, folder, onProgress);
  const name = (await readdir(join(root, "boot"))).find((file) => file.startsWith("vmlinuz-"));
  if (name === undefined) throw new VolantError("not_ready", `the package ${source.image} holds no boot/vmlinuz-*`);
  const image = await readImage(join(root, "boot", name));
  const release = releaseOf(image, name);
  // Where /lib is a link to /usr/lib, packages may carry either path.
  const candidates = ["lib/modules", "usr/lib/modules"].map((path) => join(root, path, release));
  for (const candidate of candidates) {
    if ((await stat(candidate).catch(() => undefined))?.isDirectory() !== true) continue;
    const modules = await readModules(candidate, release, WANTED_MODULES);
    return { image, release, modules, origin: { package: source.image, version: source.version } };
  }
  throw new VolantError("not_ready", `the package ${source.image} holds no modules of kernel ${release}`);
}

async function partsFromFile(source: Extract<KernelSource, { kind: "file" }>): Promise<KernelParts> {
  const path = resolve(source.path);
  const image = await readImage(path);
  const release = releaseOf(image, path);
  if (source.modulesDir === undefined) return { image, release, modules: new Map(), origin: {} };
  const modulesDir = resolve(source.modulesDir);
  if ((await stat(modulesDir).catch(() => undefined))?.isDirectory() !== true) {
    throw new VolantError("invalid", `the modules folder ${modulesDir} does not exist`);
  }
  return { image, release, modules: await readModules(modulesDir, release, WANTED_MODULES), origin: {} };
}

/** The installed kernel, if its package and version are these and its files are all there. */
async function alreadyInstalled(
  workDir: string,
  wanted: { readonly image: string; readonly version: string },
): Promise<InstalledKernel | undefined> {
  const folder = kernelFolder(workDir);
  const record = await readKernelRecord(folder).catch(() => undefined);
  if (record?.package !== wanted.image || record.version !== wanted.version) return undefined;
  const files = ["bzImage", ...(record.vmlinux_sha256 === undefined ? [] : ["vmlinux"])];
  for (const file of [...files, ...record.modules.map((module) => module.file)]) {
    const status = await stat(join(folder, file)).catch(() => undefined);
    if (status?.isFile() !== true || status.size === 0) return undefined;
  }
  return result(false, folder, record);
}

/**
 * Installs the kernel that guests boot: `<work dir>/kernel/{bzImage, vmlinux, modules/NNN-<name>.ko, kernel.json}`. The kernel that was there
 * before stays in place until the new one is complete on disk, and goes then; running guests don't notice. Installing the same kernel again
 * changes nothing.
 *
 * @throws VolantError `not_ready` (no package, no network, architecture), `invalid` (not a kernel, or modules of another one), `exists` (the place is taken)
 */
export async function installKernel(options: InstallKernelOptions): Promise<InstalledKernel> {
  if (process.arch !== "x64") {
    throw new VolantError(
      "not_ready",
      `Volant boots guests on x86-64 only so far, and this machine is ${process.arch}`,
    );
  }
  const onProgress = options.onProgress ?? (() => {});
  const workDir = resolve(options.workDir);
  const kernels = join(workDir, "kernels");
  const packages = options.source.kind === "distribution" ? await findKernelPackages(onProgress) : undefined;
  if (packages !== undefined) {
    const installed = await alreadyInstalled(workDir, packages);
    if (installed !== undefined) return installed;
  }
  try {
    await mkdir(kernels, { recursive: true, mode: 0o755 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EACCES") throw error;
    throw new VolantError("forbidden", `the work folder ${workDir} can't be written: run as root`, { cause: error });
  }
  const folder = await mkdtemp(join(kernels, ".new-"));
  const download = await mkdtemp(join(kernels, ".new-"));
  try {
    const parts =
      options.source.kind === "file"
        ? await partsFromFile(options.source)
        : await partsFromDistribution(packages as NonNullable<typeof packages>, download, onProgress);
    const transports = Object.values(TRANSPORT_MODULES);
    if (parts.modules.size > 0 && !transports.some((name) => parts.modules.has(name))) {
      onProgress(`no module file of ${transports.join(" or ")}: taken to be built into the kernel`);
    }
    onProgress(`laying out kernel ${parts.release} with ${parts.modules.size} modules`);
    const record = await layOut(folder, parts);
    const id = `${record.release}-${sha256(Buffer.from(JSON.stringify(record))).slice(0, 12)}`;
    const target = join(kernels, id);
    const current = await readlink(kernelFolder(workDir)).catch(() => undefined);
    const complete = await readKernelRecord(target).catch(() => undefined);
    const unchanged = complete !== undefined && current === join("kernels", id) && options.source.kind === "file";
    if (unchanged) return result(false, kernelFolder(workDir), record);
    // What stands there under the same name is damaged, or its link is gone: the new copy takes its place.
    await rm(target, { recursive: true, force: true });
    await rename(folder, target);
    await syncFolder(kernels);
    await switchTo(workDir, id);
    return result(true, kernelFolder(workDir), record);
  } finally {
    await rm(folder, { recursive: true, force: true });
    await rm(download, { recursive: true, force: true });
  }
}
