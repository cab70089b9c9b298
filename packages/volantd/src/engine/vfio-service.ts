/** PCI devices of the host: shown, judged, and given to vfio-pci and back. No VM uses them yet. */
import {
  VolantError,
  type VfioDeviceList,
  type VfioGroupList,
  type VfioGroupPaths,
  type VfioVerdict,
} from "@volant/contract";
import type { PciDevice, PciSysfs } from "@volant/host";
import { bindSteps, fullAddress, pciRefusal, unbindSteps, VFIO_DRIVER, type SysfsWrite } from "../model/pci.ts";
import type { VfioUseCases } from "./use-cases.ts";

type Sysfs = Pick<PciSysfs, "device" | "group" | "linksUp" | "write">;

export class VfioService implements VfioUseCases {
  readonly #sysfs: Sysfs;
  /** One change at a time: two would undo each other's. */
  #changing: Promise<unknown> = Promise.resolve();

  constructor(sysfs: Sysfs) {
    this.#sysfs = sysfs;
  }

  info(address: string): Promise<PciDevice> {
    return this.#find(fullAddress(address));
  }

  async validate(addresses: readonly string[], allowlist: readonly string[] = []): Promise<VfioVerdict> {
    const full = unique(addresses);
    const devices = await Promise.all(
      full.map(async (address) => {
        const device = await this.#sysfs.device(address);
        const reason =
          device === undefined ? absent(address).message : await this.#refusal(device, new Set(full), allowlist);
        return { address, valid: reason === undefined, ...(reason === undefined ? {} : { reason }) };
      }),
    );
    return { valid: devices.every(({ valid }) => valid), devices };
  }

  async groups(addresses: readonly string[]): Promise<VfioGroupList> {
    const devices = await this.#all(addresses);
    const ids = [...new Set(devices.flatMap(({ iommu_group: id }) => id ?? []))].toSorted((a, b) => a - b);
    const groups = ids.map(async (id) => ({ id, path: groupPath(id), devices: await this.#sysfs.group(id) }));
    return { groups: await Promise.all(groups) };
  }

  async paths(addresses: readonly string[]): Promise<VfioGroupPaths> {
    const devices = await this.#all(addresses);
    const paths = devices.map(({ address, driver, iommu_group: id }) => {
      if (driver === VFIO_DRIVER && id !== undefined) return groupPath(id);
      throw new VolantError("wrong_state", `PCI device ${address} is not bound to ${VFIO_DRIVER}`);
    });
    return { paths: [...new Set(paths)] };
  }

  bind(addresses: readonly string[]): Promise<VfioDeviceList> {
    return this.#alone(async () => {
      const devices = await this.#all(addresses);
      const together = new Set(devices.map(({ address }) => address));
      for (const device of devices) {
        const reason = await this.#refusal(device, together, []);
        if (reason !== undefined) throw new VolantError("in_use", reason);
      }
      const done: PciDevice[] = [];
      try {
        for (const device of devices) {
          done.push(device);
          await this.#write(device, bindSteps(device));
          const { driver } = await this.#find(device.address);
          if (driver === VFIO_DRIVER) continue;
          throw new VolantError("wrong_state", `PCI device ${device.address} was not taken by ${VFIO_DRIVER}`, {
            hint: `load the driver: modprobe ${VFIO_DRIVER}`,
          });
        }
      } catch (error) {
        // All of them, or none; what was vfio-pci's before stays so.
        for (const before of done) if (before.driver !== VFIO_DRIVER) await this.#giveBack(before);
        throw error;
      }
      return { devices: await this.#all(addresses) };
    });
  }

  unbind(addresses: readonly string[]): Promise<VfioDeviceList> {
    return this.#alone(async () => {
      for (const device of await this.#all(addresses)) await this.#write(device, unbindSteps(device));
      return { devices: await this.#all(addresses) };
    });
  }

  /** After a failure: what can't be given back either is left as it is, and shown so. */
  async #giveBack(device: PciDevice): Promise<void> {
    for (const { path, text } of unbindSteps({ ...device, driver: VFIO_DRIVER })) {
      await this.#sysfs.write(path, text).catch(() => {});
    }
  }

  async #write({ address }: PciDevice, steps: readonly SysfsWrite[]): Promise<void> {
    for (const { path, text } of steps) {
      try {
        await this.#sysfs.write(path, text);
      } catch (error) {
        const { code, message } = error as NodeJS.ErrnoException;
        if (code === undefined) throw error;
        throw new VolantError(
          "wrong_state",
          `the kernel does not let PCI device ${address} change its driver: ${message}`,
          {
            cause: error,
          },
        );
      }
    }
  }

  async #refusal(
    device: PciDevice,
    together: ReadonlySet<string>,
    allowlist: readonly string[],
  ): Promise<string | undefined> {
    const { iommu_group: id } = device;
    const group = id === undefined ? [] : await this.#sysfs.group(id);
    return pciRefusal(device, { group, together, allowlist, linksUp: await this.#sysfs.linksUp(device) });
  }

  #all(addresses: readonly string[]): Promise<PciDevice[]> {
    return Promise.all(unique(addresses).map((address) => this.#find(address)));
  }

  async #find(address: string): Promise<PciDevice> {
    const device = await this.#sysfs.device(address);
    if (device === undefined) throw absent(address);
    return device;
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#changing.then(work, work);
    this.#changing = next.catch(() => {});
    return next;
  }
}

function unique(addresses: readonly string[]): string[] {
  return [...new Set(addresses.map(fullAddress))];
}

function groupPath(id: number): string {
  return `/dev/vfio/${id}`;
}

function absent(address: string): VolantError {
  return new VolantError("not_found", `this host has no PCI device ${address}`, { hint: "lspci -D lists them" });
}
