/** The guest kernel's command line, apart from what the hypervisor's machine type needs. */
import { formatAddress, formatNetmask, type AddressPool } from "./address.ts";

export interface CmdlineInput {
  readonly hostname: string;
  /** Absent where the host gives the guest no address. */
  readonly address?: { readonly guest: number; readonly pool: AddressPool } | undefined;
  readonly runtime: string;
  readonly plugin: string;
  readonly apiHost?: string | undefined;
  readonly apiPort?: string | undefined;
  /** The user's own words, added at the end. */
  readonly extra: string;
}

/** `ip=<guest>::<gateway>:<netmask>:<hostname>:eth0:off`: Documentation/admin-guide/nfs/nfsroot.rst of the kernel. */
export function ipWord(guest: number, pool: AddressPool, hostname: string): string {
  const netmask = formatNetmask(pool.subnet.prefixLength);
  return `ip=${formatAddress(guest)}::${formatAddress(pool.gateway)}:${netmask}:${hostname}:eth0:off`;
}

/** The words for one start of a guest, separated by single spaces. Values were checked by the contract's schema: none holds a space or quote. */
export function guestCmdline(input: CmdlineInput): string {
  const words = [
    input.address === undefined ? "" : ipWord(input.address.guest, input.address.pool, input.hostname),
    `volant.runtime=${input.runtime}`,
    `volant.plugin=${input.plugin}`,
    input.apiHost === undefined || input.apiHost === "" ? "" : `volant.api_host=${input.apiHost}`,
    input.apiPort === undefined || input.apiPort === "" ? "" : `volant.api_port=${input.apiPort}`,
    ...input.extra.split(/\s+/),
  ];
  return words.filter((word) => word !== "").join(" ");
}
