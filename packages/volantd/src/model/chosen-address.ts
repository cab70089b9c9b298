/** Addresses that users choose for a VM: what may be chosen. Whether it is free is the store's to say. Pure. */
import { VolantError, type NetworkMode, type VmConfig } from "@volant/contract";
import { broadcastAddress, formatSubnet, parseAddress, type AddressPool } from "./address.ts";
import { vmIdOfMac } from "./mac.ts";

function wrong(where: string, problem: string): VolantError {
  return new VolantError("invalid", `${where}: ${problem}`);
}

function checkIp(where: string, text: string, mode: NetworkMode, { subnet, gateway }: AddressPool): void {
  const address = parseAddress(text);
  if (address === undefined) throw wrong(where, `ip_address ${JSON.stringify(text)} is not an IPv4 address`);
  if (mode === "vsock") throw wrong(where, `ip_address ${text} has no place in mode vsock, which has no Ethernet`);
  if (mode === "dhcp") throw wrong(where, `ip_address ${text} is the DHCP server's to say in mode dhcp`);
  const name = formatSubnet(subnet);
  if (address === subnet.network) throw wrong(where, `ip_address ${text} is the network address of ${name}`);
  const broadcast = broadcastAddress(subnet);
  if (address === broadcast) throw wrong(where, `ip_address ${text} is the broadcast address of ${name}`);
  if (address < subnet.network || address > broadcast) throw wrong(where, `ip_address ${text} is outside ${name}`);
  if (address === gateway) throw wrong(where, `ip_address ${text} is this host's own on the bridge`);
}

/** IEEE 802: bit 0 of the first byte is set in the address of a group. */
function checkMac(where: string, text: string, installation: string): void {
  if (!/^(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$/.test(text)) {
    throw wrong(
      where,
      `mac_address ${JSON.stringify(text)} is not six pairs of hexadecimal digits with colons between`,
    );
  }
  if (/^[0:]+$/.test(text)) throw wrong(where, `mac_address ${text} is all zeroes, which no station can have`);
  if (Number.parseInt(text.slice(0, 2), 16) % 2 === 1) {
    throw wrong(where, `mac_address ${text} is multicast: the first byte of a station's is even`);
  }
  if (vmIdOfMac(installation, text) !== undefined) {
    throw wrong(where, `mac_address ${text} is one of those that Volant gives to VMs by itself: choose another`);
  }
}

/**
 * Checks the addresses that a request gives.
 *
 * @param given the settings in the request itself: what was chosen before and is dormant in this mode is not looked at
 * @throws VolantError `invalid`, with one sentence
 */
export function checkChosenAddresses(
  where: string,
  given: Pick<VmConfig, "ip_address" | "mac_address">,
  context: { readonly mode: NetworkMode; readonly pool: AddressPool; readonly installation: string },
): void {
  const { ip_address: ip = "", mac_address: mac = "" } = given;
  if (ip !== "") checkIp(where, ip, context.mode, context.pool);
  if (mac !== "") checkMac(where, mac, context.installation);
}
