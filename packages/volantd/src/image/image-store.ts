/** Images by digest, on disk: `<work dir>/images/{blobs, boot, incoming}`. */
import { createHash, randomBytes } from "node:crypto";
import { constants, realpathSync, statSync } from "node:fs";
import {
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  type FileHandle,
} from "node:fs/promises";
import { dirname, isAbsolute, join, sep } from "node:path";
import type { Readable } from "node:stream";
import { finished } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { VolantError } from "@volant/contract";
import { readKernelRecord, type VirtioTransport } from "@volant/host";
import type { KernelFiles } from "../runtime/runtime.ts";
import { baseDigest, bootModules, encodeBaseInitramfs } from "./base-initramfs.ts";
import type { BootImage, ImageStore } from "./image.ts";
import { ArchiveError } from "./newc.ts";
import { scanInitramfs } from "./scan.ts";

const GIB = 1024 ** 3;
const DEFAULT_MAX_IMAGE_BYTES = 8 * GIB;
/** An initramfs lives in the guest's memory. */
const MAX_UNPACKED_BYTES = 4 * GIB;
const KERNEL_HINT = "run: volar kernel install";

export interface FileImageStoreOptions {
  /** VOLANT_WORK_DIR. */
  readonly workDir: string;
  /** The guest agent's static binary. */
  readonly agentPath: string;
  /** For how long a look at the kernel, the agent and an image holds: VMs that start together share it. Default: each looks. */
  readonly lookedForMs?: number;
  /** VOLANT_KERNEL_BZIMAGE; the kernel's record and modules are looked for beside it. */
  readonly bzImagePath: string;
  /** VOLANT_KERNEL_VMLINUX; used where it lies beside the bzImage, so that it is surely the same kernel. */
  readonly vmlinuxPath: string;
  /** How the guests' machine attaches its devices. */
  readonly transport: VirtioTransport;
  /** Whether guests have a vsock device, and need its driver. Default: no. */
  readonly vsock?: boolean;
  readonly maxImageBytes?: number;
}

interface BootImageRecord {
  readonly initramfs: string;
  readonly base: string;
  readonly unpackedBytes: number;
}

function digestOf(checksum: string): string {
  const digest = /^sha256:([0-9a-f]{64})$/.exec(checksum)?.[1];
  if (digest === undefined)
    throw new VolantError("invalid", `${JSON.stringify(checksum)} is no checksum: use sha256:<64 hex digits>`);
  return digest;
}

function isMissing(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === "ENOENT" || code === "ENOTDIR";
}

function realpathIfThere(path: string): string | undefined {
  try {
    return realpathSync.native(path);
  } catch {
    return undefined;
  }
}

function fileStamp(path: string): string {
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined ? "-" : [found.dev, found.ino, found.size, found.mtimeMs, found.ctimeMs].join(":");
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

/** A boot image, and as of when it is known to be made of what there is. */
interface KnownImage {
  readonly image: BootImage;
  readonly stamp: string;
  lookedMs: number;
}

export class FileImageStore implements ImageStore {
  readonly #options: FileImageStoreOptions;
  readonly #blobs: string;
  readonly #boot: string;
  readonly #incoming: string;
  readonly #building = new Map<string, Promise<BootImage>>();
  /** Boot images found before, by their initramfs: it takes a dozen reads to find one, and VMs that start together share it. */
  readonly #known = new Map<string, KnownImage>();
  readonly #lookedForMs: number;
  #kernel: { readonly files: KernelFiles; readonly lookedMs: number } | undefined;
  #agent: { readonly key: string; readonly sha256: string } | undefined;

  /** Makes the folders, and removes what a volantd that died left half written. One store per work folder at a time. */
  static async open(options: FileImageStoreOptions): Promise<FileImageStore> {
    const store = new FileImageStore(options);
    await rm(store.#incoming, { recursive: true, force: true });
    await store.#makeFolders();
    return store;
  }

  private constructor(options: FileImageStoreOptions) {
    this.#options = options;
    this.#lookedForMs = options.lookedForMs ?? 0;
    const root = join(options.workDir, "images");
    this.#blobs = join(root, "blobs");
    this.#boot = join(root, "boot");
    this.#incoming = join(root, "incoming");
  }

  /** Also while volantd runs: somebody may have removed them. */
  async #makeFolders(): Promise<void> {
    for (const folder of [this.#blobs, this.#boot, this.#incoming])
      await mkdir(folder, { recursive: true, mode: 0o700 });
  }

  async has(checksum: string): Promise<boolean> {
    try {
      // Asked for each VM, of a file that is ours and local: the way through libuv's pool costs many times the call.
      return statSync(this.#blobPath(checksum)).isFile();
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  pathOf(checksum: string): string {
    return this.#blobPath(checksum);
  }

  async sizeOf(checksum: string): Promise<number> {
    try {
      return (await stat(this.#blobPath(checksum))).size;
    } catch (error) {
      if (!isMissing(error)) throw error;
      throw new VolantError("not_found", `no file with checksum ${checksum} is here`, { cause: error });
    }
  }

  async put(checksum: string, content: Readable): Promise<void> {
    const digest = digestOf(checksum);
    if (await this.has(checksum)) {
      // Whoever sends it waits for it to be read.
      content.resume();
      await finished(content);
      return;
    }
    await this.#take(content, digest);
  }

  async adopt(file: { readonly url: string; readonly checksum?: string }): Promise<string> {
    if (file.checksum !== undefined && (await this.has(file.checksum))) return file.checksum;
    const expected = file.checksum === undefined ? undefined : digestOf(file.checksum);
    await using handle = await this.#openOwn(localPath(file.url));
    const digest = await this.#take(handle.createReadStream({ start: 0, autoClose: false }), expected);
    return `sha256:${digest}`;
  }

  /** What a boot image is made from and where it lies: while none of it is another file than before, neither is the image. */
  #stamp(initrdPath: string): string {
    const { bzImagePath, vmlinuxPath, agentPath } = this.#options;
    const real = realpathIfThere(bzImagePath);
    const folder = real === undefined ? [] : [dirname(real)];
    return [bzImagePath, vmlinuxPath, agentPath, initrdPath, ...folder].map(fileStamp).join(" ");
  }

  async bootImage(initramfsChecksum: string): Promise<BootImage> {
    const digest = digestOf(initramfsChecksum);
    const known = this.#known.get(digest);
    if (known !== undefined && this.#isAsStamped(known)) return known.image;
    const image = await this.#findBootImage(digest);
    const stamp = this.#stamp(image.initrdPath);
    // What changed while it was looked for would otherwise never be seen.
    if ((await this.#findBootImage(digest)).initrdPath === image.initrdPath)
      this.#known.set(digest, { image, stamp, lookedMs: performance.now() });
    return image;
  }

  #isAsStamped(known: KnownImage): boolean {
    const nowMs = performance.now();
    if (nowMs - known.lookedMs < this.#lookedForMs) return true;
    if (this.#stamp(known.image.initrdPath) !== known.stamp) return false;
    known.lookedMs = nowMs;
    return true;
  }

  async #findBootImage(digest: string): Promise<BootImage> {
    const { record, folder } = await this.#kernelRecord();
    const modules = bootModules(record?.modules ?? [], this.#options.transport, this.#options.vsock);
    const base = baseDigest(await this.#agentDigest(), modules);
    const key = createHash("sha256").update(`${base} ${digest}`).digest("hex");
    const known = this.#building.get(key);
    if (known !== undefined) return await known;
    const building = this.#readBootImage(key).then(async (image) => {
      if (image !== undefined) return image;
      return await this.#buildBootImage(key, base, digest, async () => {
        const agent = await readFile(this.#options.agentPath);
        const contents = modules.map(async ({ name, file }) => ({ name, content: await readFile(join(folder, file)) }));
        return encodeBaseInitramfs(agent, await Promise.all(contents));
      });
    });
    this.#building.set(key, building);
    try {
      return await building;
    } finally {
      this.#building.delete(key);
    }
  }

  async kernel(): Promise<KernelFiles> {
    const nowMs = performance.now();
    if (this.#kernel !== undefined && nowMs - this.#kernel.lookedMs < this.#lookedForMs) return this.#kernel.files;
    const files = this.#findKernel();
    this.#kernel = { files, lookedMs: nowMs };
    return files;
  }

  #findKernel(): KernelFiles {
    // Through the link that an install of another kernel would move: both files are of one kernel.
    const bzImagePath = realpathIfThere(this.#options.bzImagePath);
    if (bzImagePath === undefined) {
      throw new VolantError("not_ready", `no kernel is installed: there is no ${this.#options.bzImagePath}`, {
        hint: KERNEL_HINT,
      });
    }
    const elfPath = realpathIfThere(this.#options.vmlinuxPath);
    if (elfPath === undefined || dirname(elfPath) !== dirname(bzImagePath)) return { bzImagePath };
    return { bzImagePath, elfPath };
  }

  async prune(keep: ReadonlySet<string>): Promise<void> {
    const digests = new Set([...keep].map(digestOf));
    for (const name of await readdir(this.#blobs)) {
      if (!digests.has(name)) await rm(join(this.#blobs, name), { force: true });
    }
    const agent = await this.#agentDigest().catch(() => undefined);
    const kernel = await this.#kernelRecord().catch(() => undefined);
    const base =
      agent === undefined || kernel === undefined
        ? undefined
        : baseDigest(agent, bootModules(kernel.record?.modules ?? [], this.#options.transport, this.#options.vsock));
    for (const name of await readdir(this.#boot)) {
      const key = /^([0-9a-f]{64})\.(?:cpio|json)$/.exec(name)?.[1];
      if (key !== undefined && this.#building.has(key)) continue;
      const record = key === undefined ? undefined : await this.#readBootRecord(key);
      // Without a base to compare with, nothing is known to be stale.
      const current =
        record !== undefined && digests.has(record.initramfs) && (base === undefined || record.base === base);
      if (!current) await rm(join(this.#boot, name), { force: true });
    }
  }

  #blobPath(checksum: string): string {
    return join(this.#blobs, digestOf(checksum));
  }

  /** Opens a file of ours for {@link adopt}: within the work folder, also after all links on the way are followed. */
  async #openOwn(path: string): Promise<FileHandle> {
    const root = await realpath(this.#options.workDir);
    const outside = new VolantError("invalid", `${path} lies outside volantd's own folder ${root}`, {
      hint: "install the plugin with volar, which hands its files over",
    });
    let handle: FileHandle;
    try {
      const real = await realpath(path);
      if (!real.startsWith(root + sep)) throw outside;
      handle = await open(real, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (error) {
      if (!isMissing(error)) throw error;
      // Where it would be decides which it is: outside, nobody is told what is there.
      if (!join(path).startsWith(root + sep)) throw outside;
      throw new VolantError("invalid", `the file ${path} does not exist`, { cause: error });
    }
    // A folder on the way may have been replaced by a link since: what counts is the file that is open.
    const opened = await readlink(`/proc/self/fd/${handle.fd}`);
    if (opened.startsWith(root + sep) && (await handle.stat()).isFile()) return handle;
    await handle.close();
    throw new VolantError("invalid", `${path} is no file of volantd's own`);
  }

  /** Reads a stream to its end into a blob, and gives its digest. */
  async #take(content: Readable, expected: string | undefined): Promise<string> {
    const limit = this.#options.maxImageBytes ?? DEFAULT_MAX_IMAGE_BYTES;
    const path = join(this.#incoming, randomBytes(12).toString("hex"));
    const hash = createHash("sha256");
    let bytes = 0;
    try {
      await this.#makeFolders();
      await using file = await open(path, "wx", 0o600);
      for await (const chunk of content as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > limit)
          throw new VolantError("too_large", `the file is larger than ${limit} bytes, the most that is taken`);
        hash.update(chunk);
        await writeFully(file, chunk);
      }
      const digest = hash.digest("hex");
      if (expected !== undefined && digest !== expected) {
        throw new VolantError("checksum_mismatch", `the file's checksum is sha256:${digest}, not sha256:${expected}`);
      }
      await file.chmod(0o444);
      await file.sync();
      await rename(path, join(this.#blobs, digest));
      await syncFolder(this.#blobs);
      return digest;
    } catch (error) {
      content.destroy();
      await rm(path, { force: true });
      throw error;
    }
  }

  async #agentDigest(): Promise<string> {
    const { agentPath } = this.#options;
    try {
      await using file = await open(agentPath, "r");
      const { ino, size, mtimeMs, ctimeMs } = await file.stat();
      const key = [ino, size, mtimeMs, ctimeMs].join(" ");
      if (this.#agent?.key === key) return this.#agent.sha256;
      const sha256 = createHash("sha256")
        .update(await file.readFile())
        .digest("hex");
      this.#agent = { key, sha256 };
      return sha256;
    } catch (error) {
      if (!isMissing(error)) throw error;
      throw new VolantError("not_ready", `the guest agent is not there: ${agentPath}`, {
        hint: "build it: cargo build --release --locked, in kestrel/",
        cause: error,
      });
    }
  }

  /** The installed kernel's folder and record; no record for a kernel that was put there by hand, with all its drivers built in. */
  async #kernelRecord() {
    const { bzImagePath } = await this.kernel();
    const folder = dirname(bzImagePath);
    return { folder, record: await readKernelRecord(folder) };
  }

  async #readBootRecord(key: string): Promise<BootImageRecord | undefined> {
    try {
      return JSON.parse(await readFile(join(this.#boot, `${key}.json`), "utf8")) as BootImageRecord;
    } catch (error) {
      if (isMissing(error) || error instanceof SyntaxError) return undefined;
      throw error;
    }
  }

  async #readBootImage(key: string): Promise<BootImage | undefined> {
    const record = await this.#readBootRecord(key);
    const initrdPath = join(this.#boot, `${key}.cpio`);
    if (record === undefined || (await stat(initrdPath).catch(() => undefined)) === undefined) return undefined;
    return { initrdPath, unpackedBytes: record.unpackedBytes };
  }

  async #buildBootImage(
    key: string,
    base: string,
    initramfs: string,
    encodeBase: () => Promise<Buffer>,
  ): Promise<BootImage> {
    let plugin: FileHandle;
    try {
      plugin = await open(join(this.#blobs, initramfs), constants.O_RDONLY | constants.O_NOFOLLOW);
    } catch (error) {
      if (!isMissing(error)) throw error;
      throw new VolantError(
        "not_found",
        `the initramfs sha256:${initramfs} is not in the image store: volar plugins install --replace puts it there`,
        {
          hint: "install its plugin again with: volar plugins install --replace",
        },
      );
    }
    await using pluginFile = plugin;
    await this.#makeFolders();
    const archive = await encodeBase();
    const own = await this.#scan(pluginFile, initramfs);
    const path = join(this.#incoming, randomBytes(12).toString("hex"));
    const unpackedBytes = own + archive.length;
    const record: BootImageRecord = { initramfs, base, unpackedBytes };
    try {
      await using file = await open(path, "wx", 0o600);
      await writeFully(file, archive);
      for await (const chunk of pluginFile.createReadStream({ start: 0, autoClose: false })) {
        await writeFully(file, chunk as Buffer);
      }
      // The hypervisor opens it anew under a user of its own.
      await file.chmod(0o444);
      await file.sync();
      const initrdPath = join(this.#boot, `${key}.cpio`);
      await rename(path, initrdPath);
      {
        await using note = await open(path, "wx", 0o600);
        await note.writeFile(JSON.stringify(record));
        await note.sync();
      }
      await rename(path, join(this.#boot, `${key}.json`));
      await syncFolder(this.#boot);
      return { initrdPath, unpackedBytes };
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    }
  }

  async #scan(file: FileHandle, digest: string): Promise<number> {
    try {
      return (await scanInitramfs(file, MAX_UNPACKED_BYTES)).unpackedBytes;
    } catch (error) {
      if (!(error instanceof ArchiveError)) throw error;
      throw new VolantError("invalid", `the initramfs sha256:${digest} ${error.message}`, { cause: error });
    }
  }
}

/** A manifest's `url` as a path of this machine. */
function localPath(url: string): string {
  if (isAbsolute(url)) return url;
  if (url.startsWith("http://") || url.startsWith("https://")) {
    throw new VolantError("not_supported", `volantd does not fetch ${url} itself`, {
      hint: "install the plugin with volar from a file",
    });
  }
  try {
    return fileURLToPath(url);
  } catch (error) {
    throw new VolantError("invalid", `${JSON.stringify(url)} is neither a file:// URL nor an absolute path`, {
      cause: error,
    });
  }
}

async function writeFully(file: FileHandle, bytes: Uint8Array): Promise<void> {
  let at = 0;
  while (at < bytes.length) at += (await file.write(bytes, at, bytes.length - at)).bytesWritten;
}
