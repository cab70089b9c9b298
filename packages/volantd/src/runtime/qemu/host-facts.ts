/** What this host can do for QEMU: the program, its version, the accelerator, the rate of the time stamp counter. */
import { execFile } from "node:child_process";
import { access, constants, open, readFile, stat } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";
import { promisify } from "node:util";
import { VolantError } from "@volant/contract";

const execFileAsync = promisify(execFile);
const VERSION_TIMEOUT_MS = 10_000;
const PROGRAM = "qemu-system-x86_64";

export interface CpuFacts {
  readonly virtualization: boolean;
  /** In kHz; undefined where /proc/cpuinfo does not tell. */
  readonly tscKhz?: number;
}

/**
 * Reads /proc/cpuinfo of an x86 host.
 *
 * "cpu MHz" is the time stamp counter's rate only where no frequency scaling is at work; that is sure inside a virtual machine (flag `hypervisor`),
 * whose kernel sees no scaling.
 */
export function parseCpuInfo(text: string): CpuFacts {
  const flags = new Set((/^flags\s*:\s*(.*)$/m.exec(text)?.[1] ?? "").split(" "));
  const virtualization = flags.has("vmx") || flags.has("svm");
  const megahertz = Number(/^cpu MHz\s*:\s*(\d+(?:\.\d+)?)$/m.exec(text)?.[1] ?? Number.NaN);
  if (!flags.has("hypervisor") || !(megahertz > 0)) return { virtualization };
  return { virtualization, tscKhz: Math.round(megahertz * 1000) };
}

/** `QEMU emulator version 7.2.22 (Debian …)` → `7.2.22`. */
export function parseQemuVersion(text: string): string | undefined {
  return /^QEMU emulator version (\d+(?:\.\d+)+)/.exec(text)?.[1];
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

/**
 * Finds QEMU.
 *
 * @param setting VOLANT_HYPERVISOR: `qemu` or nothing for the one on the search path, or an absolute path
 * @throws VolantError `not_ready` when there is none, `not_supported` for other hypervisors, `invalid` for a setting that is neither
 */
export async function findQemu(setting: string | undefined, searchPath: string): Promise<string> {
  if (setting === "cloud-hypervisor" || setting === "firecracker") {
    throw new VolantError("not_supported", `VOLANT_HYPERVISOR=${setting} is not supported by this version: use qemu`);
  }
  if (setting !== undefined && setting !== "" && setting !== "qemu") {
    if (!isAbsolute(setting)) {
      throw new VolantError("invalid", `VOLANT_HYPERVISOR is ${JSON.stringify(setting)}: use qemu or an absolute path`);
    }
    if (await isExecutable(setting)) return setting;
    throw new VolantError("not_ready", `VOLANT_HYPERVISOR names ${setting}, and there is no such program`);
  }
  for (const folder of searchPath.split(delimiter)) {
    const candidate = join(folder, PROGRAM);
    if (isAbsolute(folder) && (await isExecutable(candidate))) return candidate;
  }
  throw new VolantError("not_ready", `QEMU is not installed: there is no ${PROGRAM} on the search path`, {
    hint: "apt-get install qemu-system-x86",
  });
}

/** @throws VolantError `not_ready` when the program does not run, `invalid` when it is no QEMU */
export async function qemuVersion(path: string): Promise<string> {
  let output: string;
  try {
    ({ stdout: output } = await execFileAsync(path, ["--version"], { timeout: VERSION_TIMEOUT_MS }));
  } catch (error) {
    throw new VolantError("not_ready", `${path} does not run`, { cause: error });
  }
  const version = parseQemuVersion(output);
  if (version === undefined) throw new VolantError("invalid", `${path} is no QEMU: it does not say its version`);
  return version;
}

export interface KvmAccess {
  readonly usable: boolean;
  /** Groups that a process needs to open /dev/kvm; none where everybody may. */
  readonly groups: readonly number[];
}

/** A node that opens is not enough: on a processor without vmx or svm it can be there, answer, and hang every guest. */
export async function kvmAccess(cpu: CpuFacts): Promise<KvmAccess> {
  if (!cpu.virtualization) return { usable: false, groups: [] };
  try {
    await using node = await open("/dev/kvm", constants.O_RDWR);
    const status = await node.stat();
    const everybody = (status.mode & 0o006) === 0o006;
    return { usable: true, groups: everybody ? [] : [status.gid] };
  } catch {
    return { usable: false, groups: [] };
  }
}

/** Off Linux nothing is known, which is the same as nothing special. */
export async function readCpuFacts(): Promise<CpuFacts> {
  if (process.platform !== "linux") return { virtualization: false };
  return parseCpuInfo(await readFile("/proc/cpuinfo", "utf8"));
}
