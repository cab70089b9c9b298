/** The host's PCI devices as sysfs shows them (the kernel's Documentation/ABI/testing/sysfs-bus-pci). */
import { readdir, readFile, readlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";

export interface PciDevice {
  /** Domain, bus, device and function in full. */
  readonly address: string;
  /** Hexadecimal digits without `0x`. */
  readonly vendor: string;
  readonly device: string;
  readonly class: string;
  /** Empty where none has it. */
  readonly driver: string;
  readonly iommu_group?: number;
  /** -1 where the host does not say. */
  readonly numa_node: number;
  /** Network links that it is. */
  readonly links: string[];
}

export interface PciSysfsOptions {
  /** Default: `/sys`. */
  readonly root?: string;
  /** Writes into a file that is there. Default: into the kernel's. */
  readonly write?: (path: string, text: string) => Promise<void>;
}

function isMissing(error: unknown): boolean {
  return ["ENOENT", "ENOTDIR", "EINVAL"].includes(String((error as NodeJS.ErrnoException).code));
}

async function orElse<T>(work: Promise<T>, otherwise: T): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!isMissing(error)) throw error;
    return otherwise;
  }
}

export class PciSysfs {
  readonly root: string;
  readonly #write: (path: string, text: string) => Promise<void>;

  constructor({ root = "/sys", write }: PciSysfsOptions = {}) {
    this.root = root;
    // Never makes a file: what sysfs lacks, the kernel does not know.
    this.#write = write ?? ((path, text) => writeFile(path, text, { flag: "r+" }));
  }

  /** @param address in full. Undefined when there is no such device */
  async device(address: string): Promise<PciDevice | undefined> {
    const folder = join(this.root, "bus/pci/devices", address);
    const vendor = await this.#hex(folder, "vendor");
    if (vendor === undefined) return undefined;
    const [device = "", code = "", driver, group, node, links] = await Promise.all([
      this.#hex(folder, "device"),
      this.#hex(folder, "class"),
      orElse(readlink(join(folder, "driver")), ""),
      orElse(readlink(join(folder, "iommu_group")), ""),
      orElse(readFile(join(folder, "numa_node"), "utf8"), "-1"),
      orElse(readdir(join(folder, "net")), []),
    ]);
    const groupId = /^\d+$/.exec(basename(group))?.[0];
    return {
      address,
      vendor,
      device,
      class: code,
      driver: basename(driver),
      ...(groupId === undefined ? {} : { iommu_group: Number(groupId) }),
      numa_node: Number.parseInt(node, 10),
      links: links.toSorted(),
    };
  }

  /** Everything in an IOMMU group, by address. */
  async group(id: number): Promise<PciDevice[]> {
    const names = await orElse(readdir(join(this.root, "kernel/iommu_groups", String(id), "devices")), []);
    const found = await Promise.all(names.toSorted().map((name) => this.device(name)));
    return found.filter((device) => device !== undefined);
  }

  /** Those of a device's network links that are up. */
  async linksUp({ address, links }: PciDevice): Promise<string[]> {
    const states = await Promise.all(
      links.map((link) =>
        orElse(readFile(join(this.root, "bus/pci/devices", address, "net", link, "operstate"), "utf8"), ""),
      ),
    );
    return links.filter((_, index) => states[index]?.trim() === "up");
  }

  /** @param path below the root. @throws Error of the system: the kernel's refusal */
  async write(path: string, text: string): Promise<void> {
    await this.#write(join(this.root, path), text);
  }

  async #hex(folder: string, name: string): Promise<string | undefined> {
    const text = await orElse(readFile(join(folder, name), "utf8"), undefined);
    return text === undefined ? undefined : /^(?:0x)?([0-9a-f]+)/i.exec(text.trim())?.[1]?.toLowerCase();
  }
}
