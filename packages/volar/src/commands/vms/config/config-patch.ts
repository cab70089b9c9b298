/** From flags and a file to the patch that `volar vms config set` sends. Pure: what is valid is the server's to say. */
import type { RestartPolicy, VmConfig, VmConfigPatch } from "@volant/contract";
import { VolantError } from "@volant/contract/errors";

export interface ConfigFlags {
  readonly plugin?: string;
  readonly runtime?: string;
  readonly cpu?: number;
  /** MiB. */
  readonly memory?: number;
  readonly kernelCmdline?: string;
  readonly apiHost?: string;
  readonly apiPort?: string;
  readonly network?: string;
  readonly ip?: string;
  readonly restart?: RestartPolicy;
  readonly env?: Readonly<Record<string, string>>;
  readonly nameserver?: readonly string[];
}

type Fields = Readonly<Record<string, unknown>>;

function given(fields: Fields): Fields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** The object with what flags say of it; undefined where they say nothing. */
function changed(object: Fields | null | undefined, flags: Fields): Fields | undefined {
  const said = given(flags);
  return Object.keys(said).length === 0 ? undefined : { ...object, ...said };
}

/**
 * The patch. A flag wins over the file and changes only what it names: the API replaces objects whole, so that what flags leave alone in one is sent again.
 *
 * @param current the VM's configuration
 * @param file the object that `--config` names, as it was read
 * @throws VolantError `invalid` when the file is no object, or nothing is to be changed
 */
export function configPatch(current: VmConfig, flags: ConfigFlags, file: unknown = {}): VmConfigPatch {
  if (typeof file !== "object" || file === null || Array.isArray(file)) {
    throw new VolantError("invalid", "the file that --config names must hold a JSON object");
  }
  const patch = file as VmConfigPatch;
  const fromFlags = given({
    plugin: flags.plugin,
    runtime: flags.runtime,
    kernel_cmdline: flags.kernelCmdline,
    resources: changed(patch.resources ?? current.resources, { cpu_cores: flags.cpu, memory_mb: flags.memory }),
    api: changed(patch.api ?? current.api, { host: flags.apiHost, port: flags.apiPort }),
    network: flags.network === undefined ? undefined : { mode: flags.network },
    ip_address: flags.ip === "none" ? "" : flags.ip,
    env: flags.env === undefined ? undefined : { ...(patch.env ?? current.env), ...flags.env },
    nameservers: flags.nameserver,
    restart: flags.restart,
  });
  const whole = { ...patch, ...fromFlags } as VmConfigPatch;
  if (Object.keys(whole).length > 0) return whole;
  throw new VolantError("invalid", "nothing is to be changed: name a setting, or a file with --config");
}
