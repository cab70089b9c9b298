/** Guests' MAC addresses: `02:` (IEEE 802: locally administered, unicast), two bytes of the installation, three of the VM. */

/** Ids above this have no MAC of their own. Ids are never reused, so this is how many VMs one installation can make in its life. */
export const MAX_MAC_VM_ID = 0xff_ff_ff;

function hex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}

/**
 * The MAC of a VM, the same for all its life.
 *
 * @param installation hexadecimal installation id; its first four digits are used
 */
export function macAddress(installation: string, vmId: number): string {
  if (!Number.isInteger(vmId) || vmId < 1 || vmId > MAX_MAC_VM_ID) throw new RangeError(`no MAC for VM id ${vmId}`);
  const bytes = [(vmId >>> 16) & 255, (vmId >>> 8) & 255, vmId & 255];
  return ["02", installation.slice(0, 2), installation.slice(2, 4), ...bytes.map(hex)].join(":");
}

/** The id of the VM of this installation that has this MAC; undefined when the MAC is not one of ours. */
export function vmIdOfMac(installation: string, mac: string): number | undefined {
  const prefix = `02:${installation.slice(0, 2)}:${installation.slice(2, 4)}:`;
  const text = mac.toLowerCase();
  if (!text.startsWith(prefix) || !/^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(text)) return undefined;
  const vmId = Number.parseInt(text.slice(prefix.length).replaceAll(":", ""), 16);
  return vmId === 0 ? undefined : vmId;
}
