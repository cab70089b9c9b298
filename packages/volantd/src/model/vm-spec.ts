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
import { networkMode, resolveNetworkConfig } from "./network.ts";

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
  readonly initramfs: Initramfs;
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
 * @throws VolantError `invalid` or `not_supported`, naming the field
 */
export function resolveVm(request: CreateVmRequest, manifest: Manifest, managed: ManagedNetwork): VmSpec {
  const where = `VM "${request.name}"`;
  const config = request.config ?? {};
  checkVmConfig(where, config);
  const used = config.initramfs === undefined ? manifest : { ...manifest, initramfs: config.initramfs };
  const initramfs = checkManifest(used, managed);
  checkNetwork(where, config.network, managed);
  const network = resolveNetworkConfig(used, config);
  for (const nameserver of config.nameservers ?? []) checkNameserver(where, nameserver);
  const spec: VmSpec = {
    name: request.name,
    plugin: manifest.name,
    runtime: request.runtime ?? config.runtime ?? manifest.runtime ?? manifest.name,
    cpuCores: request.cpu_cores ?? config.resources?.cpu_cores ?? manifest.resources.cpu_cores,
    memoryMib: request.memory_mb ?? config.resources?.memory_mb ?? manifest.resources.memory_mb,
    kernelCmdline: request.kernel_cmdline ?? config.kernel_cmdline ?? "",
    apiHost: request.api_host ?? config.api?.host ?? "",
    apiPort: request.api_port ?? config.api?.port ?? "",
    manifest: used,
    config,
    mode: networkMode(network),
    tap: network?.tap,
    bridge: network?.bridge === managed.bridge ? undefined : network?.bridge,
    initramfs,
  };
  checkWord(`${where}: the runtime's name`, spec.runtime);
  checkWord(`${where}: field "api_host"`, spec.apiHost);
  checkPort(`${where}: field "api_port"`, spec.apiPort);
  return spec;
}
