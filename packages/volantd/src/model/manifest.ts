/** Which manifests this version can run. What it can't honour is refused by name: nothing is stored in silence. */
import { VolantError, type Initramfs, type Manifest, type Network, type VmConfig } from "@volant/contract";
import { formatAddress, formatSubnet, type AddressPool } from "./address.ts";
import { isOpenApi } from "./openapi-source.ts";
import { networkMode } from "./network.ts";
import { isLinkName } from "./tap-name.ts";

/** The network that `volar setup` made and that this volantd hands out addresses of. */
export interface ManagedNetwork {
  readonly bridge: string;
  readonly pool: AddressPool;
}

function unsupported(where: string, field: string): VolantError {
  return new VolantError("not_supported", `${where}: field "${field}" is not supported by this version`);
}

/** Whether a value says something: absent, empty lists and empty objects ask for nothing. */
function asksForSomething(value: unknown): boolean {
  if (value === undefined || value === null) return false;
  if (Array.isArray(value)) return value.length > 0;
  return typeof value !== "object" || Object.values(value).some(asksForSomething);
}

function refuse<T extends object>(where: string, value: T, fields: readonly (keyof T & string)[]): void {
  for (const field of fields) if (asksForSomething(value[field])) throw unsupported(where, field);
}

/**
 * @param where what the network belongs to, for the sentence
 * @throws VolantError `invalid` or `not_supported`, naming the field
 */
export function checkNetwork(where: string, network: Network | undefined, managed: ManagedNetwork): void {
  if (network === undefined) return;
  const mode = networkMode(network);
  if (mode === "vsock") {
    checkNoEthernet(where, network);
    return;
  }
  if (network.tap !== undefined && !isLinkName(network.tap)) {
    throw new VolantError("invalid", `${where}: network.tap ${JSON.stringify(network.tap)} is no name for a link`);
  }
  if (mode === "dhcp") {
    checkDhcpNetwork(where, network);
    return;
  }
  if (network.bridge !== undefined && network.bridge !== managed.bridge) {
    throw new VolantError(
      "not_supported",
      `${where}: network.bridge is ${JSON.stringify(network.bridge)}, and only the managed bridge ${managed.bridge} is supported by this version`,
    );
  }
  if (network.auto_assign === false) throw unsupported(where, "network.auto_assign");
  const subnet = formatSubnet(managed.pool.subnet);
  if (network.subnet !== undefined && network.subnet !== subnet) {
    throw new VolantError("invalid", `${where}: network.subnet must be the managed network's, ${subnet}`);
  }
  const gateway = formatAddress(managed.pool.gateway);
  if (network.gateway !== undefined && network.gateway !== gateway) {
    throw new VolantError("invalid", `${where}: network.gateway must be the managed network's, ${gateway}`);
  }
}

/** In `dhcp` a server of the network says what the others say in a managed one. */
function checkDhcpNetwork(where: string, network: Network): void {
  if (network.bridge !== undefined && !isLinkName(network.bridge)) {
    throw new VolantError(
      "invalid",
      `${where}: network.bridge ${JSON.stringify(network.bridge)} is no name for a link`,
    );
  }
  const given = (["subnet", "gateway"] as const).find((field) => network[field] !== undefined);
  if (given !== undefined) {
    throw new VolantError("invalid", `${where}: network.${given} is the DHCP server's to say in mode dhcp`);
  }
  if (network.auto_assign === true) {
    throw new VolantError(
      "invalid",
      `${where}: network.auto_assign is of mode bridged: in mode dhcp this host assigns no address`,
    );
  }
}

/** @throws VolantError `invalid` for a field that says something of an Ethernet which the mode has not */
function checkNoEthernet(where: string, network: Network): void {
  for (const field of ["bridge", "tap", "subnet", "gateway", "auto_assign"] as const) {
    if (network[field] === undefined) continue;
    throw new VolantError("invalid", `${where}: network.${field} has no place in mode vsock, which has no Ethernet`);
  }
}

/**
 * The boot medium of a manifest that this version can run on this host.
 *
 * @throws VolantError `invalid` or `not_supported`, naming the field
 */
export function checkManifest(manifest: Manifest, managed: ManagedNetwork): Initramfs {
  const where = `manifest of "${manifest.name}"`;
  refuse(where, manifest, ["rootfs", "disks", "cloud_init", "devices"]);
  if (manifest.initramfs === undefined) {
    throw new VolantError("invalid", `${where} names no boot media: it needs an initramfs or a rootfs`);
  }
  if (manifest.workload.entrypoint?.[0] === undefined || manifest.workload.entrypoint[0] === "") {
    throw new VolantError("invalid", `${where}: field "workload.entrypoint" must name the program to run in the guest`);
  }
  checkBaseUrl(where, manifest);
  checkOpenApi(where, manifest);
  if (manifest.policy?.anti_spoof === false) {
    throw new VolantError(
      "invalid",
      `${where}: a manifest may only tighten policy.anti_spoof: false is the operator's to say, for a VM`,
    );
  }
  checkNetwork(where, manifest.network, managed);
  return manifest.initramfs;
}

function checkOpenApi(where: string, { openapi = "" }: Manifest): void {
  const isDocument = openapi.trimStart().startsWith("{");
  if (isDocument ? isOpenApi(openapi) : openapi === "" || openapi.startsWith("/") || /^https?:\/\//.test(openapi))
    return;
  const what = isDocument ? "is no OpenAPI document" : "must be a path of the workload, a URL, or the document itself";
  throw new VolantError("invalid", `${where}: field "openapi" ${what}`, {
    hint: "volar plugins install puts a file that it names in its place",
  });
}

function checkBaseUrl(where: string, manifest: Manifest): void {
  const { base_url: baseUrl } = manifest.workload;
  if (baseUrl === undefined) {
    if (manifest.health_check === undefined) return;
    throw new VolantError("invalid", `${where}: a health_check needs "workload.base_url", to know where to ask`);
  }
  if (!/^http:\/\/[^/\s]+(?:\/\S*)?$/.test(baseUrl)) {
    throw new VolantError("invalid", `${where}: field "workload.base_url" must be a URL such as http://127.0.0.1:8080`);
  }
}

/** @throws VolantError `not_supported`, naming the field of a VM's own settings that this version does not honour */
export function checkVmConfig(where: string, config: VmConfig): void {
  refuse(where, config, ["kernel_override", "devices", "cloud_init", "rootfs"]);
}
