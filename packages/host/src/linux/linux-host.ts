/** The Linux host that set-up works on. */
import { stat } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import { VolantError } from "@volant/contract";
import type { ObserveRequest, SetupHost } from "../setup/host-port.ts";
import type { KernelIdentity, ObservedFirewall, ObservedHost } from "../setup/observed.ts";
import { withFurther } from "../setup/plan-firewall.ts";
import { FORWARDING } from "../setup/operation.ts";
import type { Operation } from "../setup/operation.ts";
import { RECORD_FILE, formatRecord, isStale, parseRecord } from "../setup/record.ts";
import type { SetupRecord } from "../setup/record.ts";
import { deleteFile, makeFolder, missingFolders, readTextFile, removeEmptyFolders, writeTextFile } from "./files.ts";
import { observeFirewall } from "./firewall.ts";
import { deleteRule, insertRule, removeEmptyChain } from "./iptables.ts";
import { isNamespaceAlive, readKernelIdentity } from "./kernel-identity.ts";
import { withLock } from "./lock.ts";
import { changeNetwork, observeNetwork } from "./network.ts";
import { deleteTable, writeTable } from "./nftables.ts";
import { observeStations } from "./stations.ts";
import { readForwardingSysctls, readSysctl, restoreForwarding, writeSysctl } from "./sysctl.ts";
import { observeService, systemctl } from "./systemd.ts";

/** The unit's file and the record are for everyone to read: they hold no secret, and a dry run needs no root. */
const FILE_MODE = 0o644;

/** Errors of the file system that say something about the host, not about this program. */
const FILE_ERRORS: ReadonlySet<string> = new Set(Object.keys(constants.errno));

function fileError(what: string, cause: unknown): unknown {
  if (!(cause instanceof Error) || !("code" in cause) || !FILE_ERRORS.has(String(cause.code))) return cause;
  const denied = cause.code === "EACCES" || cause.code === "EPERM";
  const hint = denied ? { hint: "run it with sudo" } : {};
  return new VolantError(denied ? "forbidden" : "not_ready", `can't ${what}: ${cause.message}`, { ...hint, cause });
}

async function onDisk<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fileError(what, error);
  }
}

export class LinuxHost implements SetupHost {
  readonly #workDir: string;
  readonly #recordPath: string;

  /** @param workDir the work folder, which holds the set-up's record */
  constructor(workDir: string) {
    this.#workDir = workDir;
    this.#recordPath = join(workDir, RECORD_FILE);
  }

  async observe(request: ObserveRequest): Promise<ObservedHost> {
    const root = process.geteuid?.() === 0;
    const kernel = await readKernelIdentity();
    const recorded = request.record?.kernel;
    const elsewhere = recorded?.bootId === kernel.bootId && recorded.networkNamespace !== kernel.networkNamespace;
    const network = await observeNetwork();
    const firewall = withFurther(request.firewall, network);
    return {
      root,
      kernel,
      recordedNamespaceAlive: elsewhere && (await isNamespaceAlive(recorded.networkNamespace)),
      network,
      sysctls: await observeSysctls(request, kernel),
      stations: await observeStations(request.stations),
      firewall: root ? await observeFirewall(firewall, request.everything) : await unseenFirewall(),
      service: await observeService(request.serviceFile),
    };
  }

  async execute(operation: Operation): Promise<void> {
    switch (operation.kind) {
      case "create_bridge":
      case "create_lan_bridge":
      case "move_card":
      case "add_lan_address":
      case "delete_lan_address":
      case "replace_route":
      case "delete_link":
      case "set_alias":
      case "set_mac":
      case "set_up":
      case "add_address":
      case "delete_address":
        return await changeNetwork(operation);
      case "enable_forwarding":
        return await onDisk("enable IPv4 forwarding", () => writeSysctl(FORWARDING, "1"));
      case "restore_forwarding":
        return await onDisk("restore IPv4 forwarding", () => restoreForwarding(operation.values));
      case "set_sysctl":
        return await onDisk(`set ${operation.name}`, () => writeSysctl(operation.name, operation.value));
      case "write_nft_table":
        return await writeTable(operation.table);
      case "delete_nft_table":
        return await deleteTable(operation.name, operation.comment);
      case "insert_rule":
        return await insertRule(operation.rule);
      case "delete_rule":
        return await deleteRule(operation.rule);
      case "remove_empty_chain":
        return await removeEmptyChain(operation.table, operation.chain, operation.tableToo);
      case "write_file":
        return await onDisk("write the service", () => writeTextFile(operation.path, operation.content, FILE_MODE));
      case "delete_file":
        return await onDisk("remove the service", () => deleteFile(operation.path));
      case "systemctl":
        return await systemctl(operation.verb, operation.unit);
      case "systemd_reload":
        return await systemctl("daemon-reload");
    }
  }

  async readSysctls(): Promise<Readonly<Record<string, string>>> {
    return await readForwardingSysctls();
  }

  async readRecord(): Promise<SetupRecord | undefined> {
    const text = await onDisk("read the set-up's record", () => readTextFile(this.#recordPath));
    return text === undefined ? undefined : parseRecord(text, this.#recordPath);
  }

  /** Changes with the record: each is written as a file of its own. Undefined while there is none, or it can't be seen. */
  async recordStamp(): Promise<string | undefined> {
    try {
      const { ino, mtimeNs, size } = await stat(this.#recordPath, { bigint: true });
      return `${ino} ${mtimeNs} ${size}`;
    } catch {
      return undefined;
    }
  }

  async writeRecord(record: SetupRecord): Promise<void> {
    await onDisk("write the set-up's record", async () => {
      await makeFolder(this.#workDir);
      await writeTextFile(this.#recordPath, formatRecord(record), FILE_MODE);
    });
  }

  async missingFolders(): Promise<readonly string[]> {
    return await onDisk("use the work folder", () => missingFolders(this.#workDir));
  }

  async removeGuestPolicy(): Promise<void> {
    // It loads netlink, which nothing does before it is used.
    const { removeGuestPolicy } = await import("../policy/remove.ts");
    await removeGuestPolicy();
  }

  async removeRecord(createdFolders: readonly string[]): Promise<void> {
    await onDisk("remove the set-up's record", () => deleteFile(this.#recordPath));
    await removeEmptyFolders(createdFolders);
  }

  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    return await withLock(this.#workDir, work);
  }
}

async function observeSysctls(request: ObserveRequest, kernel: KernelIdentity): Promise<Record<string, string>> {
  const { sysctls, everything, record } = request;
  const forwardingKnown = request.forwardingKnown && record !== undefined && !isStale(record, kernel);
  const isOn = (await readSysctl(FORWARDING)) === "1";
  if (everything || !(isOn || forwardingKnown)) return await readForwardingSysctls();
  const values: Record<string, string> = {};
  for (const name of [FORWARDING, ...sysctls]) {
    const value = await readSysctl(name);
    if (value !== undefined) values[name] = value;
  }
  return values;
}

/** What someone who is not root knows of the firewall. */
async function unseenFirewall(): Promise<ObservedFirewall> {
  return await Promise.resolve({ state: "unusable", reason: "only root can see its rules" });
}
