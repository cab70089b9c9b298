/** What a VM is to be, worked out once at its creation from the request, its own settings and the plugin's manifest. */
import {
  VolantError,
  type CreateVmRequest,
  type Initramfs,
  type Manifest,
  type NetworkMode,
  type VmConfig,
} from "@volant/contract";
import { parseAddress } from "./address.ts";
import { checkManifest, checkNetwork, checkVmConfig, type ManagedNetwork } from "./manifest.ts";
import { resolveAntiSpoof } from "./policy.ts";
import { networkMode, resolveNetworkConfig } from "./network.ts";
import { wantedPorts } from "./published-port.ts";
import { requestedConfig } from "./vm-config.ts";

export interface VmSpec {
  readonly name: string;
  readonly plugin: string;
  readonly runtime: string;
  readonly cpuCores: number;
  readonly memoryMib: number;
  /** The user's own words for the guest kernel. */
  readonly kernelCmdline: string;
  readonly apiHost: string;
  readonly apiPort: string;
  /** A copy: what happens to the plugin later does not reach this VM. */
  readonly manifest: Manifest;
  readonly config: VmConfig;
  readonly mode: NetworkMode;
  /** The tap's name where the user chose it. */
  readonly tap: string | undefined;
  /** The bridge that its tap joins where that is not the managed one. */
  readonly bridge?: string | undefined;
  /** Whether the guest is held to its address; absent in rows from before there was a choice, and then it is. */
  readonly antiSpoof?: boolean;
  readonly initramfs: Initramfs;
  /** An address that is this VM's for life, whether its mode needs one or not. */
  readonly reservedAddress?: number | undefined;
  /** The guest's MAC where the user chose it. */
  readonly mac?: string | undefined;
}

/** The plugin that a request asks for; undefined where its config brings a manifest of its own. */
export function requestedPlugin(request: CreateVmRequest): string | undefined {
  const { config } = request;
  if (config?.manifest !== undefined) return undefined;
  const plugin = request.plugin ?? config?.plugin ?? request.runtime ?? config?.runtime;
  if (plugin !== undefined) return plugin;
  throw new VolantError("invalid", `VM "${request.name}" needs a plugin to run`, { hint: "volar plugins list" });
}

function checkWord(where: string, value: string): void {
  if (!/^[\x21\x23-\x7e]*$/.test(value)) {
    throw new VolantError(
      "invalid",
      `${where} must not contain spaces, quotes, control characters or letters beyond ASCII`,
    );
  }
}

function checkPort(where: string, port: string): void {
  if (port === "" || (/^[1-9]\d{0,4}$/.test(port) && Number(port) <= 65_535)) return;
  throw new VolantError("invalid", `${where} must be a port from 1 to 65535, and is ${JSON.stringify(port)}`);
}

/** @throws VolantError `invalid` for what is no IPv4 address; the guest's resolv.conf holds only those for now */
function checkNameserver(where: string, text: string): void {
  if (parseAddress(text) !== undefined) return;
  throw new VolantError("invalid", `${where}: nameserver ${JSON.stringify(text)} is not an IPv4 address`);
}

/**
 * What the VM is to be. The request's own fields win over its `config`, which wins over the manifest.
 *
 * @param manifest the requested plugin's; `config.manifest`, where there is one, is used instead
 * @param antiSpoof whether guests are held to their addresses where nobody says otherwise: the operator's setting
 * @throws VolantError `invalid` or `not_supported`, naming the field
 */
export function resolveVm(
  request: CreateVmRequest,
  manifest: Manifest,
  managed: ManagedNetwork,
  antiSpoof = true,
): VmSpec {
  return resolveConfig(request.name, requestedConfig(request), { manifest, managed, antiSpoof });
}

/**
 * What a VM with these settings is to be. `ip_address` and `mac_address` are checked where they are given; see chosen-address.ts.
 *
 * @param manifest `config.manifest` where there is one, else the plugin's
 * @param antiSpoof as in {@link resolveVm}
 * @throws VolantError `invalid` or `not_supported`, naming the field
 */
export function resolveConfig(
  name: string,
  config: VmConfig,
  {
    manifest,
    managed,
    antiSpoof = true,
  }: { readonly manifest: Manifest; readonly managed: ManagedNetwork; readonly antiSpoof?: boolean | undefined },
): VmSpec {
  const where = `VM "${name}"`;
  checkVmConfig(where, config);
  if (config.manifest !== undefined && config.plugin !== undefined && config.plugin !== config.manifest.name) {
    throw new VolantError(
      "invalid",
      `${where}: plugin "${config.plugin}" and the manifest of "${config.manifest.name}" both say what to run: give one of them`,
    );
  }
  const used = config.initramfs === undefined ? manifest : { ...manifest, initramfs: config.initramfs };
  const initramfs = checkManifest(used, managed);
  checkNetwork(where, config.network, managed);
  const network = resolveNetworkConfig(used, config);
  wantedPorts(where, config.expose);
  for (const nameserver of config.nameservers ?? []) checkNameserver(where, nameserver);
  const spec: VmSpec = {
    name,
    plugin: manifest.name,
    runtime: config.runtime || manifest.runtime || manifest.name,
    cpuCores: config.resources?.cpu_cores ?? manifest.resources.cpu_cores,
    memoryMib: config.resources?.memory_mb ?? manifest.resources.memory_mb,
    kernelCmdline: config.kernel_cmdline ?? "",
    apiHost: config.api?.host ?? "",
    apiPort: config.api?.port ?? "",
    manifest: used,
    config: config.manifest === undefined ? { ...config, plugin: manifest.name } : config,
    mode: networkMode(network),
    tap: network?.tap,
    antiSpoof: resolveAntiSpoof(used, config, antiSpoof),
    bridge: network?.bridge === managed.bridge ? undefined : network?.bridge,
    initramfs,
    reservedAddress: parseAddress(config.ip_address ?? ""),
    mac: config.mac_address?.toLowerCase() || undefined,
  };
  checkWord(`${where}: the runtime's name`, spec.runtime);
  checkWord(`${where}: field "api_host"`, spec.apiHost);
  checkPort(`${where}: field "api_port"`, spec.apiPort);
  return spec;
}
