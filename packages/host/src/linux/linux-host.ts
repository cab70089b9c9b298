/** The Linux host that set-up works on. */
import { constants } from "node:os";
import { join } from "node:path";
import { VolantError } from "@volant/contract";
import type { ObserveRequest, SetupHost } from "../setup/host-port.ts";
import type { ObservedFirewall, ObservedHost } from "../setup/observed.ts";
import { FORWARDING } from "../setup/operation.ts";
import type { Operation } from "../setup/operation.ts";
import { RECORD_FILE, formatRecord, parseRecord } from "../setup/record.ts";
import type { SetupRecord } from "../setup/record.ts";
import { deleteFile, makeFolder, missingFolders, readTextFile, removeEmptyFolders, writeTextFile } from "./files.ts";
import { deleteRule, insertRule, observeFirewall, removeEmptyChain } from "./iptables.ts";
import { isNamespaceAlive, readKernelIdentity } from "./kernel-identity.ts";
import { withLock } from "./lock.ts";
import { changeNetwork, observeNetwork } from "./network.ts";
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
    return {
      root,
      kernel,
      recordedNamespaceAlive: elsewhere && (await isNamespaceAlive(recorded.networkNamespace)),
      network: await observeNetwork(),
      sysctls: await observeSysctls(request.everything),
      firewall: root ? await observeFirewall(request.rules, request.everything) : await unseenFirewall(),
      service: await observeService(request.serviceFile),
    };
  }

  async execute(operation: Operation): Promise<void> {
    switch (operation.kind) {
      case "create_bridge":
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

  async writeRecord(record: SetupRecord): Promise<void> {
    await onDisk("write the set-up's record", async () => {
      await makeFolder(this.#workDir);
      await writeTextFile(this.#recordPath, formatRecord(record), FILE_MODE);
    });
  }

  async missingFolders(): Promise<readonly string[]> {
    return await onDisk("use the work folder", () => missingFolders(this.#workDir));
  }

  async removeRecord(createdFolders: readonly string[]): Promise<void> {
    await onDisk("remove the set-up's record", () => deleteFile(this.#recordPath));
    await removeEmptyFolders(createdFolders);
  }

  async exclusively<T>(work: () => Promise<T>): Promise<T> {
    return await withLock(this.#workDir, work);
  }
}

async function observeSysctls(all: boolean): Promise<Record<string, string>> {
  const forwarding = await readSysctl(FORWARDING);
  if (forwarding === "1" && !all) return { [FORWARDING]: forwarding };
  return await readForwardingSysctls();
}

/** What someone who is not root knows of the firewall. */
async function unseenFirewall(): Promise<ObservedFirewall> {
  return await Promise.resolve({ state: "unusable", reason: "only root can see its rules" });
}
