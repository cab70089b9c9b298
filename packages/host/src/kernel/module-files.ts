/** Finds module files in a distribution's `/lib/modules/<release>` and reads those that guests need. */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync, zstdDecompressSync } from "node:zlib";
import { VolantError } from "@volant/contract";
import { moduleName, readModuleInfo, type ModuleInfo } from "./module.ts";

const execFileAsync = promisify(execFile);

/** The largest module of any use to a guest is below 2 MB. */
const MAX_MODULE_BYTES = 32 * 1024 * 1024;
const FILE_NAME = /^(.+)\.ko(\.gz|\.zst|\.xz)?$/;

export interface ModuleFile extends ModuleInfo {
  readonly content: Uint8Array;
}

/** All module files below a folder: name in modinfo's form → path. */
async function listModuleFiles(folder: string): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const stem = FILE_NAME.exec(entry.name)?.[1];
    if (stem !== undefined && entry.isFile()) found.set(moduleName(stem), join(entry.parentPath, entry.name));
  }
  return found;
}

async function unpack(path: string): Promise<Uint8Array> {
  if (path.endsWith(".xz")) {
    // Node's zlib has no xz; every distribution that packs modules with it has the program.
    const options = { encoding: "buffer", maxBuffer: MAX_MODULE_BYTES } as const;
    return (await execFileAsync("xz", ["--decompress", "--stdout", "--", path], options)).stdout;
  }
  const content = await readFile(path);
  if (path.endsWith(".gz")) return gunzipSync(content, { maxOutputLength: MAX_MODULE_BYTES });
  if (path.endsWith(".zst")) return zstdDecompressSync(content, { maxOutputLength: MAX_MODULE_BYTES });
  return content;
}

/**
 * The wanted modules and all that they depend on, unpacked, by name. Modules without a file are built into the kernel, or not there at all: a
 * caller that can't do without one checks for itself.
 *
 * @param folder holds module files at any depth, `.ko` or `.ko.gz`, `.ko.zst`, `.ko.xz`
 * @param release modules of another kernel release are refused
 * @throws VolantError `invalid` for a file that is no module, or of another release
 */
export async function readModules(
  folder: string,
  release: string,
  wanted: readonly string[],
): Promise<Map<string, ModuleFile>> {
  const paths = await listModuleFiles(folder);
  const modules = new Map<string, ModuleFile>();
  const waiting = wanted.map(moduleName);
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    const path = paths.get(name);
    if (path === undefined || modules.has(name)) continue;
    const content = await unpack(path).catch((error: unknown) => {
      throw new VolantError("invalid", `the kernel module ${path} does not unpack`, { cause: error });
    });
    const info = readModuleInfo(content);
    if (info === undefined) throw new VolantError("invalid", `${path} is no 64-bit kernel module`);
    if (info.release !== release) {
      throw new VolantError("invalid", `${path} belongs to kernel ${info.release}, and the kernel is ${release}`);
    }
    modules.set(name, { ...info, name, content });
    waiting.push(...info.depends);
  }
  return modules;
}
