/** A folder like /sys with PCI devices in it. Writes reach its files as they would the kernel's, and drivers then come and go as with it. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { PciSysfs } from "@volant/host";

export interface ReplicaDevice {
  readonly id: `${string}:${string}`;
  readonly class: string;
  /** The host's own driver for it. */
  readonly driver?: string;
  readonly group?: number;
  /** State of its network link `eth0`. */
  readonly link?: "up" | "down";
}

export class SysfsReplica {
  readonly root = mkdtempSync(join(tmpdir(), "sysfs-"));
  readonly sysfs: PciSysfs;
  /** What was written, as `path text`. */
  readonly writes: string[] = [];
  /** Devices that no driver takes, whatever is written. */
  readonly stubborn = new Set<string>();
  readonly #devices: Readonly<Record<string, ReplicaDevice>>;

  constructor(devices: Readonly<Record<string, ReplicaDevice>>) {
    this.#devices = devices;
    this.#file("bus/pci/drivers_probe");
    for (const name of ["vfio-pci", ...Object.values(devices).flatMap(({ driver }) => driver ?? [])]) {
      this.#file(`bus/pci/drivers/${name}/unbind`);
    }
    for (const [address, device] of Object.entries(devices)) this.#make(address, device);
    this.sysfs = new PciSysfs({ root: this.root, write: (path, text) => this.#written(path, text) });
  }

  remove(): void {
    rmSync(this.root, { recursive: true });
  }

  #file(path: string, text = ""): void {
    mkdirSync(join(this.root, path, ".."), { recursive: true });
    writeFileSync(join(this.root, path), text);
  }

  #make(address: string, { id, class: code, group, link, driver }: ReplicaDevice): void {
    const folder = `bus/pci/devices/${address}`;
    const [vendor, device] = id.split(":");
    const files = { vendor: `0x${vendor}\n`, device: `0x${device}\n`, class: `0x${code}\n`, numa_node: "-1\n" };
    for (const [name, text] of Object.entries({ ...files, driver_override: "(null)\n" })) {
      this.#file(`${folder}/${name}`, text);
    }
    if (link !== undefined) this.#file(`${folder}/net/eth0/operstate`, `${link}\n`);
    if (driver !== undefined) this.#bind(address, driver);
    if (group === undefined) return;
    const members = join(this.root, `kernel/iommu_groups/${group}/devices`);
    mkdirSync(members, { recursive: true });
    symlinkSync(join(this.root, folder), join(members, address));
    symlinkSync(join(members, ".."), join(this.root, folder, "iommu_group"));
  }

  #bind(address: string, driver: string): void {
    symlinkSync(join(this.root, "bus/pci/drivers", driver), join(this.root, "bus/pci/devices", address, "driver"));
  }

  async #written(path: string, text: string): Promise<void> {
    const shown = path.slice(this.root.length + 1);
    await writeFile(path, text, { flag: "r+" });
    this.writes.push(`${shown} ${text.trim()}`);
    const link = join(this.root, "bus/pci/devices", text.trim(), "driver");
    const name = basename(path);
    if (name === "unbind") {
      // As the kernel: a driver lets go of what it has, and of nothing else.
      if (!existsSync(link) || basename(readlinkSync(link)) !== basename(join(path, ".."))) {
        throw Object.assign(new Error("ENODEV: no such device"), { code: "ENODEV" });
      }
      rmSync(link);
    }
    if (name !== "drivers_probe" || existsSync(link)) return;
    const address = text.trim();
    const wanted = readFileSync(join(this.root, "bus/pci/devices", address, "driver_override"), "utf8");
    const own = this.#devices[address]?.driver;
    const driver = wanted.startsWith("vfio-pci") ? "vfio-pci" : own;
    if (driver !== undefined && !(this.stubborn.has(address) && driver === "vfio-pci")) this.#bind(address, driver);
  }
}
