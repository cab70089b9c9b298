/** From flags and environment to a request for set-up. */
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { DEFAULTS } from "@volant/contract/defaults";
import { VolantError } from "@volant/contract/errors";
import type { SetupRequest } from "@volant/host";
import { ownProgram } from "@volant/host/installation";

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
  readonly firewall?: string;
  readonly lan?: string;
  readonly lanName?: string;
  readonly lanBridge?: readonly string[];
  readonly undo?: boolean;
  readonly dryRun?: boolean;
}

/** What `--lan` calls its bridge. */
export const DEFAULT_LAN_BRIDGE = "lbr0";

type Environment = Readonly<Record<string, string | undefined>>;

/** A path from a flag, a variable (an empty one counts as unset) or the default; relative ones are meant from here. */
function pathSetting(flag: string, given: string | undefined, variable: string | undefined, standard: string): string {
  if (given === "") throw new VolantError("invalid", `${flag} needs a path, and it is empty`);
  return resolve(given ?? (variable || standard));
}

/** Undefined leaves it to what the host is set up with. */
function firewallSetting(value: string | undefined): SetupRequest["firewall"] {
  if (value === undefined || value === "iptables" || value === "nftables") return value;
  throw new VolantError("invalid", `the firewall ${JSON.stringify(value)} does not exist: use iptables or nftables`, {
    hint: "it is set by --firewall or VOLANT_FIREWALL",
  });
}

function lanRequests({ lan, lanName, lanBridge = [] }: SetupFlags): NonNullable<SetupRequest["lans"]> {
  if (lan === undefined && lanName !== undefined) {
    throw new VolantError("invalid", "--lan-name names the bridge that --lan makes, and there is no --lan");
  }
  const made = lan === undefined ? [] : [{ bridge: lanName ?? DEFAULT_LAN_BRIDGE, card: lan }];
  return [...made, ...lanBridge.map((bridge) => ({ bridge, card: null }))];
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
    firewall: firewallSetting(flags.firewall ?? (env["VOLANT_FIREWALL"] || undefined)),
    lans: lanRequests(flags),
  };
}
