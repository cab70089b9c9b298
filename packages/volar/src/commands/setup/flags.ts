/** From flags and environment to a request for set-up. */
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { DEFAULTS } from "@volant/contract/defaults";
import { VolantError } from "@volant/contract/errors";
import type { SetupRequest } from "@volant/host";

export interface SetupFlags {
  readonly bridge?: string;
  readonly subnet?: string;
  readonly hostIp?: string;
  readonly runtimeDir?: string;
  readonly logDir?: string;
  readonly workDir?: string;
  readonly bzimage?: string;
  readonly vmlinux?: string;
  readonly serviceFile?: string;
  readonly volantdProgram?: string;
  readonly volarProgram?: string;
  readonly adopt?: boolean;
  readonly undo?: boolean;
  readonly dryRun?: boolean;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** A program of this checkout's `bin`. */
function ownProgram(name: string): string {
  return fileURLToPath(new URL(`../../../../../bin/${name}`, import.meta.url));
}

/** A path from a flag, a variable (an empty one counts as unset) or the default; relative ones are meant from here. */
function pathSetting(flag: string, given: string | undefined, variable: string | undefined, standard: string): string {
  if (given === "") throw new VolantError("invalid", `${flag} needs a path, and it is empty`);
  return resolve(given ?? (variable || standard));
}

/** The work folder: all that an undo needs to know. */
export function workDirSetting(flags: Pick<SetupFlags, "workDir">, env: Environment): string {
  return pathSetting("--work-dir", flags.workDir, env["VOLANT_WORK_DIR"], DEFAULTS.workDir);
}

/**
 * The request: a flag wins over its variable, and that over the default.
 *
 * @throws VolantError `invalid` for an empty path
 */
export function setupRequest(flags: SetupFlags, env: Environment): SetupRequest {
  const workDir = workDirSetting(flags, env);
  const home = join(homedir(), ".volant");
  const { serviceFile = DEFAULTS.serviceFile } = flags;
  return {
    bridge: flags.bridge ?? (env["VOLANT_BRIDGE"] || DEFAULTS.bridge),
    subnet: flags.subnet ?? (env["VOLANT_SUBNET"] || DEFAULTS.subnet),
    hostIp: flags.hostIp ?? (env["VOLANT_HOST_IP"] || DEFAULTS.hostIp),
    runtimeDir: pathSetting("--runtime-dir", flags.runtimeDir, env["VOLANT_RUNTIME_DIR"], join(home, "run")),
    logDir: pathSetting("--log-dir", flags.logDir, env["VOLANT_LOG_DIR"], join(home, "logs")),
    workDir,
    bzImage: pathSetting("--bzimage", flags.bzimage, env["VOLANT_KERNEL_BZIMAGE"], join(workDir, "kernel/bzImage")),
    vmlinux: pathSetting("--vmlinux", flags.vmlinux, env["VOLANT_KERNEL_VMLINUX"], join(workDir, "kernel/vmlinux")),
    serviceFile: serviceFile === "" ? "" : resolve(serviceFile),
    volantdProgram: pathSetting("--volantd-program", flags.volantdProgram, undefined, ownProgram("volantd")),
    volarProgram: pathSetting("--volar-program", flags.volarProgram, undefined, ownProgram("volar")),
    adopt: flags.adopt ?? false,
  };
}
