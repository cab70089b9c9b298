/** From flags and a configuration file to the request body. Pure: what is valid is the server's to say. */
import type { CreateVmRequest, RestartPolicy, VmConfig } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";
import type { ExposeEntry } from "./port-spec.ts";

export interface CreateFlags {
  readonly plugin?: string;
  readonly runtime?: string;
  readonly cpu?: number;
  /** MiB. */
  readonly memory?: number;
  readonly kernelCmdline?: string;
  readonly kernel?: string;
  readonly initramfs?: string;
  readonly initramfsChecksum?: string;
  readonly apiHost?: string;
  readonly apiPort?: string;
  readonly device?: readonly string[];
  readonly deviceAllowlist?: readonly string[];
  readonly network?: string;
  readonly publish?: readonly ExposeEntry[];
  readonly ip?: string;
  readonly mac?: string;
  readonly allowSpoofing?: boolean;
  readonly restart?: RestartPolicy;
  readonly env?: Readonly<Record<string, string>>;
  readonly nameserver?: readonly string[];
}

/** The object without fields that are undefined; undefined where none is left. */
function compact<T extends object>(fields: { [K in keyof T]: T[K] | undefined }): T | undefined {
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  return given.length === 0 ? undefined : (Object.fromEntries(given) as T);
}

function configOf(flags: CreateFlags, file: VmConfig): VmConfig | undefined {
  if (flags.initramfsChecksum !== undefined && flags.initramfs === undefined) {
    throw new VolantError("invalid", "--initramfs-checksum needs --initramfs");
  }
  const initramfs =
    flags.initramfs === undefined
      ? file.initramfs
      : compact<NonNullable<VmConfig["initramfs"]>>({ url: flags.initramfs, checksum: flags.initramfsChecksum });
  const devices = compact<NonNullable<VmConfig["devices"]>>({
    pci_passthrough: flags.device === undefined ? undefined : [...flags.device],
    allowlist: flags.deviceAllowlist === undefined ? undefined : [...flags.deviceAllowlist],
  });
  return compact<VmConfig>({
    ...file,
    kernel_override: flags.kernel ?? file.kernel_override,
    initramfs,
    devices: devices === undefined ? file.devices : { ...file.devices, ...devices },
    network: flags.network === undefined ? file.network : { ...file.network, mode: flags.network },
    expose: flags.publish === undefined ? file.expose : [...(file.expose ?? []), ...flags.publish],
    ip_address: flags.ip ?? file.ip_address,
    mac_address: flags.mac ?? file.mac_address,
    policy: flags.allowSpoofing === true ? { ...file.policy, anti_spoof: false } : file.policy,
    restart: flags.restart ?? file.restart,
    env: flags.env === undefined ? file.env : { ...file.env, ...flags.env },
    nameservers: flags.nameserver === undefined ? file.nameservers : [...flags.nameserver],
  });
}

/**
 * The request that `volar vms create` sends. A flag wins over the file.
 *
 * @param file the object that `--config` names, as it was read
 * @throws VolantError `invalid` when the file is no object or a flag lacks another
 */
export function createRequest(name: string, flags: CreateFlags, file: unknown = {}): CreateVmRequest {
  if (typeof file !== "object" || file === null || Array.isArray(file)) {
    throw new VolantError("invalid", "the file that --config names must hold a JSON object");
  }
  const request = compact<CreateVmRequest>({
    name,
    plugin: flags.plugin,
    runtime: flags.runtime,
    cpu_cores: flags.cpu,
    memory_mb: flags.memory,
    kernel_cmdline: flags.kernelCmdline,
    api_host: flags.apiHost,
    api_port: flags.apiPort,
    config: configOf(flags, file),
  });
  return { ...request, name };
}
