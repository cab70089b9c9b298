/** Who sees to a network card: a card that a network manager configures must be given to a bridge in that manager's own way. */
import { basename, join } from "node:path";
import { type ConfigFile, isUnmanagedByNetworkManager } from "../doctor/network-managers.ts";
import { observeProcesses } from "../doctor/observe-processes.ts";
import type { LanObstacle } from "../setup/lan.ts";
import { listFolder, readTextFile } from "./files.ts";

const NETWORK_MANAGER_FILES = ["/etc/NetworkManager/NetworkManager.conf"];
const NETWORK_MANAGER_FOLDERS = [
  "/usr/lib/NetworkManager/conf.d",
  "/run/NetworkManager/conf.d",
  "/etc/NetworkManager/conf.d",
];
/** networkd's word on each link, by index (networkctl(1) prints the same). */
const NETWORKD_LINKS = "/run/systemd/netif/links";
const IFUPDOWN_FILE = "/etc/network/interfaces";
const IFUPDOWN_FOLDER = "/etc/network/interfaces.d";

interface Card {
  readonly name: string;
  readonly index: number;
}

async function readable(path: string): Promise<string> {
  return (await readTextFile(path).catch(() => undefined)) ?? "";
}

/** Whether it is a radio: the kernel lists it as one, or sysfs does where that shows this network namespace. */
export async function isWireless({ name, index }: Card): Promise<boolean> {
  const listed = (await readable("/proc/net/wireless")).split("\n").some((line) => line.trim().startsWith(`${name}:`));
  if (listed) return true;
  const folder = join("/sys/class/net", name);
  if ((await readable(join(folder, "ifindex"))).trim() !== String(index)) return false;
  const entries = await listFolder(folder);
  return entries.includes("phy80211") || entries.includes("wireless");
}

/** Who configures the card, and how it is given to a bridge there. */
export async function findCardOwner(card: Card): Promise<LanObstacle | undefined> {
  const { managers } = await observeProcesses();
  if (managers.includes("NetworkManager") && !isUnmanagedByNetworkManager(await networkManagerFiles(), card.name)) {
    return ownerObstacle(card.name, "NetworkManager", [
      "nmcli connection add type bridge ifname lbr0 con-name lbr0 bridge.stp no",
      `nmcli connection add type ethernet ifname ${card.name} master lbr0`,
      "nmcli connection up lbr0",
    ]);
  }
  if (managers.includes("systemd-networkd")) {
    const state = /^ADMIN_STATE=(.*)$/m.exec(await readable(join(NETWORKD_LINKS, String(card.index))))?.[1];
    if (state !== undefined && state !== "unmanaged") {
      return ownerObstacle(card.name, "systemd-networkd", [
        "printf '[NetDev]\\nName=lbr0\\nKind=bridge\\n' > /etc/systemd/network/20-lbr0.netdev",
        `Bridge=lbr0 in the .network file of ${card.name}, its addresses in one of lbr0`,
        "networkctl reload",
      ]);
    }
  }
  if (isConfiguredByIfupdown(await ifupdownFiles(), card.name)) {
    return ownerObstacle(card.name, "ifupdown", [
      `in ${IFUPDOWN_FILE}: iface lbr0 with the addresses of ${card.name}, bridge_ports ${card.name} and bridge_fd 0`,
      `iface ${card.name} inet manual`,
      "ifup lbr0",
    ]);
  }
  return undefined;
}

function ownerObstacle(name: string, owner: string, steps: readonly string[]): LanObstacle {
  return {
    message: `${owner} configures ${name}, and would take it back`,
    hint: `make the bridge there (${steps.join("; ")}), then: volar setup --lan-bridge lbr0`,
  };
}

async function networkManagerFiles(): Promise<ConfigFile[]> {
  const paths = [...NETWORK_MANAGER_FILES];
  for (const folder of NETWORK_MANAGER_FOLDERS) {
    for (const name of await listFolder(folder)) if (name.endsWith(".conf")) paths.push(join(folder, name));
  }
  return await Promise.all(paths.map(async (path) => ({ path, text: await readable(path) })));
}

async function ifupdownFiles(): Promise<string[]> {
  // interfaces(5): names in interfaces.d are letters, digits, `_` and `-`.
  const names = (await listFolder(IFUPDOWN_FOLDER)).filter((name) => /^[\w-]+$/.test(basename(name)));
  return await Promise.all([IFUPDOWN_FILE, ...names.map((name) => join(IFUPDOWN_FOLDER, name))].map(readable));
}

/** Whether interfaces(5) gives the card an address: a stanza for it of another method than `manual`. */
export function isConfiguredByIfupdown(files: readonly string[], card: string): boolean {
  return files
    .flatMap((text) => text.split("\n"))
    .map((line) => line.trim().split(/\s+/))
    .some(([word, name, , method]) => word === "iface" && name === card && method !== "manual");
}
