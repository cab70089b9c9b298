/** Which PCI devices may be handed to a guest, and the steps that do it. Pure. */
import type { VfioDevice } from "@volant/contract";

export const VFIO_DRIVER = "vfio-pci";

/** The address as sysfs has it. */
export function fullAddress(address: string): string {
  const lower = address.toLowerCase();
  return lower.split(":").length === 2 ? `0000:${lower}` : lower;
}

/** PCI Code and ID Assignment: base classes of mass storage and of bridges. */
const [STORAGE_CLASS, BRIDGE_CLASS] = ["01", "06"];

function isBridge({ class: code }: VfioDevice): boolean {
  return code.startsWith(BRIDGE_CLASS);
}

/** Whether a pattern of an allowlist, an address or `vendor:device` with `*` for any characters, stands for a device. */
function fits(pattern: string, { address, vendor, device }: VfioDevice): boolean {
  const parts = pattern.toLowerCase().split("*");
  return [address, address.replace(/^0000:/, ""), `${vendor}:${device}`].some((text) => {
    if (parts.length === 1) return text === parts[0];
    const [first = "", last = ""] = [parts[0], parts.at(-1)];
    if (!text.startsWith(first) || !text.endsWith(last) || text.length < first.length + last.length) return false;
    let at = first.length;
    for (const part of parts.slice(1, -1)) {
      const found = text.indexOf(part, at);
      if (found < 0 || found + part.length > text.length - last.length) return false;
      at = found + part.length;
    }
    return true;
  });
}

export interface PciSurroundings {
  /** Everything in the device's IOMMU group, itself included. */
  readonly group: readonly VfioDevice[];
  /** Addresses that are asked for together. */
  readonly together: ReadonlySet<string>;
  /** Those of its network links that are up. */
  readonly linksUp: readonly string[];
  readonly allowlist: readonly string[];
}

/** Why a device can't be handed to a guest; undefined where it can. */
export function pciRefusal(device: VfioDevice, around: PciSurroundings): string | undefined {
  const { address, driver, iommu_group: group } = device;
  const isTaken = driver === VFIO_DRIVER;
  if (around.allowlist.length > 0 && !around.allowlist.some((pattern) => fits(pattern, device))) {
    return `PCI device ${address} is not on the allowlist`;
  }
  if (isBridge(device)) return `PCI device ${address} is a bridge, which can't be handed to a guest`;
  if (group === undefined) {
    return `PCI device ${address} is in no IOMMU group: switch the IOMMU on in the firmware, and with intel_iommu=on on Intel`;
  }
  const [link] = around.linksUp;
  if (!isTaken && link !== undefined)
    return `PCI device ${address} is the network link ${link}, which is up: take it down first`;
  if (!isTaken && driver !== "" && device.class.startsWith(STORAGE_CLASS)) {
    return `PCI device ${address} is storage that the host uses by its driver ${driver}: take it from that driver first`;
  }
  const other = around.group.find(
    (member) =>
      !around.together.has(member.address) &&
      !isBridge(member) &&
      member.driver !== "" &&
      member.driver !== VFIO_DRIVER,
  );
  if (other === undefined) return undefined;
  return `PCI device ${address} shares IOMMU group ${group} with ${other.address}, which the host's driver ${other.driver} has: both go to the guest, or neither`;
}

/** One line that is written into a file of sysfs, by its path below the root. */
export interface SysfsWrite {
  readonly path: string;
  readonly text: string;
}

/** Gives a device to vfio-pci (the kernel's Documentation/ABI/testing/sysfs-bus-pci, driver_override). */
export function bindSteps({ address, driver }: VfioDevice): SysfsWrite[] {
  if (driver === VFIO_DRIVER) return [];
  return [
    { path: `bus/pci/devices/${address}/driver_override`, text: VFIO_DRIVER },
    ...(driver === "" ? [] : [{ path: `bus/pci/drivers/${driver}/unbind`, text: address }]),
    { path: "bus/pci/drivers_probe", text: address },
  ];
}

/** Gives a device back to whichever driver of the host wants it. Where vfio-pci does not have it, there is nothing to give. */
export function unbindSteps({ address, driver }: VfioDevice): SysfsWrite[] {
  if (driver !== VFIO_DRIVER) return [];
  return [
    // A line break alone clears it.
    { path: `bus/pci/devices/${address}/driver_override`, text: "\n" },
    { path: `bus/pci/drivers/${VFIO_DRIVER}/unbind`, text: address },
    { path: "bus/pci/drivers_probe", text: address },
  ];
}
