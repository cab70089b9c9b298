/** Looks at the host for the doctor, and changes nothing. What can't be looked at is left out of the view. */
import { constants } from "node:fs";
import { access, open, realpath, stat } from "node:fs/promises";
import { basename, isAbsolute, join } from "node:path";
import { VolantError } from "@volant/contract";
import { blockOf, parseCidr } from "../ipv4.ts";
import { listFolder, readTextFile } from "../linux/files.ts";
import { observeIptables } from "../linux/iptables.ts";
import { LinuxHost } from "../linux/linux-host.ts";
import { isNetlinkError, openNetlink } from "../linux/netlink.ts";
import { describeNetwork } from "../linux/network.ts";
import { listRuleset, observeNftables } from "../linux/nftables.ts";
import { complaint, findProgram, runProgram } from "../linux/programs.ts";
import { readSysctl } from "../linux/sysctl.ts";
import { isBootedWithSystemd } from "../linux/systemd.ts";
import { GuestPolicy } from "../policy/guest-policy.ts";
import { isIptablesForward, parseRuleset } from "../setup/forward-chains.ts";
import { managedTable } from "../setup/nft-table.ts";
import { FORWARDING, ruleKey } from "../setup/operation.ts";
import { RECORD_FILE } from "../setup/record.ts";
import { managedRules } from "../setup/rules.ts";
import { DEFAULT_FIREWALL, type FirewallKind } from "../setup/settings.ts";
import { BRIDGE_NF_CALL, rpFilterName } from "./check-firewall.ts";
import { type ConfigFile, findNetworkdSeizer, isUnmanagedByNetworkManager } from "./network-managers.ts";
import { observeProcesses } from "./observe-processes.ts";
import { findFrontends, parseFilterTable } from "./parse-firewall.ts";
import type {
  Access,
  DoctorSettings,
  DoctorView,
  SeenClock,
  SeenFirewall,
  SeenMachine,
  SeenNetwork,
  SeenPolicy,
  SeenProcesses,
  SeenVolantd,
} from "./view.ts";

export interface DoctorRequest {
  readonly settings: Omit<DoctorSettings, "block" | "firewall"> & { readonly firewall?: FirewallKind | undefined };
  readonly volantd: SeenVolantd;
  /** VOLANT_HYPERVISOR: a path, or a name to look for. */
  readonly hypervisor?: string | undefined;
  /** Whether a volantd that starts would manage the network; one that answers says so itself. Default: true. */
  readonly managed?: boolean;
  /** Run no program: without the firewall and the time server, and within milliseconds. */
  readonly cheap?: boolean;
}

/** Folders of configuration, the one that wins first. */
const NETWORKD_FOLDERS = ["/etc/systemd/network", "/run/systemd/network", "/usr/lib/systemd/network"];
const NETWORK_MANAGER_MAIN = "/etc/NetworkManager/NetworkManager.conf";
const NETWORK_MANAGER_FOLDERS = [
  "/etc/NetworkManager/conf.d",
  "/run/NetworkManager/conf.d",
  "/usr/lib/NetworkManager/conf.d",
];

/**
 * Everything that the checks need.
 *
 * @throws VolantError `invalid` for a subnet that is none
 */
export async function observeForDoctor(request: DoctorRequest): Promise<DoctorView> {
  const { volantd } = request;
  const cidr = parseCidr(request.settings.subnet);
  if (cidr === undefined) throw new VolantError("invalid", `the subnet ${request.settings.subnet} is not one`);
  const settings = {
    ...request.settings,
    firewall: request.settings.firewall ?? DEFAULT_FIREWALL,
    block: blockOf(cidr.address, cidr.prefixLength),
    // As the kernel names what processes have open.
    runtimeDir: await realpath(request.settings.runtimeDir).catch(() => request.settings.runtimeDir),
  };
  const root = process.geteuid?.() === 0;
  const network = await seeNetwork();
  const processes = await observeProcesses();
  return {
    root,
    settings,
    volantd,
    managed: (volantd.answers ? volantd.managed : undefined) ?? request.managed ?? true,
    network,
    processes,
    record: await seeRecord(settings.workDir),
    sysctls: await seeSysctls(settings.bridge, network),
    firewall: await seeFirewall(settings, root, request.cheap === true),
    policy: await seePolicy(root && request.cheap !== true),
    seizers: await seeSeizers(processes),
    machine: await seeMachine(settings.bzImage, request.hypervisor),
    folders: await seeFolders(settings.runtimeDir),
    clock: await seeClock(settings, request.cheap === true),
  };
}

async function seeRecord(workDir: string): Promise<DoctorView["record"]> {
  try {
    return await new LinuxHost(workDir).readRecord();
  } catch (error) {
    if (error instanceof VolantError) return { unreadable: error.message, denied: error.code === "forbidden" };
    throw error;
  }
}

async function seeNetwork(): Promise<SeenNetwork | undefined> {
  try {
    await using netlink = await openNetlink();
    const links = await netlink.links.list({ stats: false });
    const addresses = await netlink.addresses.list({ family: "inet" });
    const routes = await netlink.routes.list({ family: "inet", table: "all" });
    const mtus = new Map(links.map(({ name, mtu }) => [name, mtu]));
    const seen = describeNetwork(links, addresses, routes);
    return { ...seen, links: seen.links.map((link) => ({ ...link, mtu: mtus.get(link.name) ?? 0 })) };
  } catch (error) {
    if (isNetlinkError(error)) return undefined;
    throw error;
  }
}

async function seeSysctls(bridge: string, network: SeenNetwork | undefined): Promise<Record<string, string>> {
  const out = (network?.routes ?? []).flatMap(({ destination, link }) =>
    destination === "0.0.0.0/0" ? (link ?? []) : [],
  );
  const names = [FORWARDING, BRIDGE_NF_CALL, ...["all", bridge, ...out].map(rpFilterName)];
  const values: Record<string, string> = {};
  for (const name of new Set(names)) {
    const value = await readSysctl(name);
    if (value !== undefined) values[name] = value;
  }
  return values;
}

async function seeFirewall(settings: DoctorSettings, root: boolean, cheap: boolean): Promise<DoctorView["firewall"]> {
  if (cheap) return { unseen: "the firewall is not looked at here: volar doctor does" };
  if (!root) return { unseen: "only root can see the firewall's rules" };
  if (settings.firewall === "nftables") return await seeNftables(settings);
  const rules = managedRules(settings);
  const observed = await observeIptables(rules, settings.bridge, false);
  const iptables = await findProgram("iptables");
  if (observed.state === "missing" || iptables === undefined) return { unseen: "there is no iptables on this host" };
  if (observed.state === "unusable") return { unseen: `iptables does not work on this host: ${observed.reason}` };
  const listed = await runProgram(iptables, ["-w", "-S"]);
  if (listed.status !== 0) return { unseen: `iptables does not list its rules: ${complaint(listed)}` };
  const version = await runProgram(iptables, ["--version"]);
  const filter = parseFilterTable(listed.stdout, settings);
  const items = await listRuleset();
  const ruleset = items === undefined ? undefined : parseRuleset(items, settings.bridge);
  const present = rules.map((rule) => observed.rules.includes(ruleKey(rule)));
  const [masquerade = false, acceptFrom = false, acceptTo = false] = present;
  const { forwardPolicy, droppedBy } = filter;
  // What iptables has in nft's tables is looked at through iptables; the legacy one's tables nft can't see.
  const inNft = version.stdout.includes("nf_tables");
  return {
    masquerade,
    acceptFrom,
    acceptTo,
    forwardPolicy,
    droppedBy,
    otherChains: ruleset?.forward.filter((chain) => !inNft || !isIptablesForward(chain)),
    frontends: findFrontends(names(ruleset?.tables), [...filter.chains, ...names(ruleset?.chains)]),
  } satisfies SeenFirewall;
}

async function seePolicy(look: boolean): Promise<SeenPolicy> {
  const nft = await findProgram("nft");
  if (nft === undefined || !look) return { nft: nft !== undefined, table: undefined, slow: undefined };
  const slow = await slowReason();
  try {
    // Whose entries they are does not matter here: no installation has this id.
    const { rules, empty } = await new GuestPolicy({ installation: "0000", nft }).observe();
    return { nft: true, table: { rules, empty }, slow };
  } catch (error) {
    if (error instanceof VolantError) return { nft: true, table: undefined, slow };
    throw error;
  }
}

/** Loads netlink, as nothing else here does before it is needed: off Linux there is none. */
async function slowReason(): Promise<string | undefined> {
  const { openFastPath } = await import("../policy/fast-path.ts");
  try {
    await openFastPath();
    return undefined;
  } catch (error) {
    if (error instanceof VolantError) return error.message;
    throw error;
  }
}

const names = (items: readonly { readonly name: string }[] = []): string[] => items.map(({ name }) => name);

async function seeNftables(settings: DoctorSettings): Promise<DoctorView["firewall"]> {
  const { bridge } = settings;
  const observed = await observeNftables(managedTable(settings, []), bridge);
  if (observed.state === "missing") return { unseen: "there is no nft on this host" };
  if (observed.state === "unusable") return { unseen: `nft does not work on this host: ${observed.reason}` };
  const { tables, chains } = parseRuleset((await listRuleset()) ?? [], bridge);
  const [masquerade = false, acceptFrom = false, acceptTo = false] = observed.table?.present ?? [];
  return {
    masquerade,
    acceptFrom,
    acceptTo,
    forwardPolicy: "ACCEPT",
    droppedBy: undefined,
    otherChains: observed.otherChains,
    frontends: findFrontends(names(tables), names(chains)),
  };
}

async function readConfigs(paths: readonly string[]): Promise<ConfigFile[]> {
  const files = await Promise.all(
    paths.map(async (path) => ({ path, text: await readTextFile(path).catch(() => undefined) })),
  );
  return files.flatMap(({ path, text }) => (text === undefined ? [] : [{ path, text }]));
}

/** The files of several folders by file name; one that the first folder has hides those of the same name in others. */
async function configPaths(folders: readonly string[], ending: string): Promise<string[]> {
  const paths = new Map<string, string>();
  for (const folder of folders.toReversed()) {
    for (const name of await listFolder(folder)) if (name.endsWith(ending)) paths.set(name, join(folder, name));
  }
  return [...paths.values()].toSorted((a, b) => (basename(a) < basename(b) ? -1 : 1));
}

async function seeSeizers({ managers }: SeenProcesses): Promise<DoctorView["seizers"]> {
  const seizers: DoctorView["seizers"][number][] = [];
  if (managers.includes("NetworkManager")) {
    const files = await readConfigs([NETWORK_MANAGER_MAIN, ...(await configPaths(NETWORK_MANAGER_FOLDERS, ".conf"))]);
    const spared = isUnmanagedByNetworkManager(files);
    if (!spared) seizers.push({ manager: "NetworkManager", path: NETWORK_MANAGER_MAIN });
  }
  if (managers.includes("systemd-networkd")) {
    const path = findNetworkdSeizer(await readConfigs(await configPaths(NETWORKD_FOLDERS, ".network")));
    if (path !== undefined) seizers.push({ manager: "systemd-networkd", path });
  }
  return seizers;
}

/** Whether the work on a path, which fails with the system's error code, is possible. */
async function seeAccess(work: Promise<unknown>): Promise<Access> {
  try {
    await work;
    return "usable";
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "EACCES" || code === "EPERM" ? "denied" : "missing";
  }
}

/** Device nodes may be there without a device: only opening tells. */
async function openAndClose(path: string): Promise<void> {
  await (await open(path, constants.O_RDWR)).close();
}

async function seeMachine(bzImage: string, hypervisor: string | undefined): Promise<SeenMachine> {
  const flags = /^flags\s*:(.*)$/m.exec((await readTextFile("/proc/cpuinfo")) ?? "")?.[1] ?? "";
  const asked = hypervisor !== undefined && isAbsolute(hypervisor) ? hypervisor : undefined;
  const found = asked === undefined ? await findProgram("qemu-system-x86_64") : asked;
  return {
    virtualization: /\b(?:vmx|svm)\b/.test(flags),
    kvmNode: await seeAccess(openAndClose("/dev/kvm")),
    tunNode: await seeAccess(openAndClose("/dev/net/tun")),
    hypervisor:
      found !== undefined && (await seeAccess(access(found, constants.X_OK))) === "usable" ? found : undefined,
    kernel: await seeAccess(access(bzImage)),
  };
}

/** Folders of VMs are named by their ids, of at most nine digits; anything else in there is not ours. */
async function seeFolders(runtimeDir: string): Promise<number[] | undefined> {
  const folder = await seeAccess(access(runtimeDir, constants.R_OK));
  if (folder !== "usable") return folder === "missing" ? [] : undefined;
  return (await listFolder(runtimeDir)).filter((name) => /^[1-9]\d{0,8}$/.test(name)).map(Number);
}

async function seeClock({ workDir, bzImage }: DoctorSettings, cheap: boolean): Promise<SeenClock> {
  const times: number[] = [];
  for (const path of [join(workDir, RECORD_FILE), bzImage]) {
    try {
      times.push((await stat(path)).mtimeMs);
    } catch {
      // Not there, or not for us to see.
    }
  }
  return {
    nowMs: Date.now(),
    newestFileMs: times.length === 0 ? undefined : Math.max(...times),
    synchronized: cheap ? undefined : await seeSynchronized(),
  };
}

async function seeSynchronized(): Promise<boolean | undefined> {
  const timedatectl = (await isBootedWithSystemd()) ? await findProgram("timedatectl") : undefined;
  if (timedatectl === undefined) return undefined;
  const { status, stdout } = await runProgram(timedatectl, ["show", "--property=NTPSynchronized", "--value"]);
  return status === 0 ? stdout.trim() === "yes" : undefined;
}
