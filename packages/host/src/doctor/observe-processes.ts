/** Looks at /proc for hypervisors of ours and for network managers, in this network namespace. */
import { readFile, readlink, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { listFolder, readTextFile } from "../linux/files.ts";
import type { SeenHypervisor, SeenProcesses } from "./view.ts";

/** Names of hypervisors' processes: at most 15 bytes (TASK_COMM_LEN, less the closing zero). */
const HYPERVISORS = /^(?:qemu-system-|cloud-hyperviso|firecracker)/;
/** The mark that one of a hypervisor's arguments is, whole, or as the name of QEMU's guest. */
const MARK = /^(?:guest=)?volant:([0-9A-Za-z]{1,64}):([1-9]\d{0,9}):\d{1,15}$/;
/** Standard error: a hypervisor's is a file in its VM's folder, for its last words. */
const STDERR = 2;
/** What the kernel appends to the path of an open file that was removed (proc_pid_fd(5)). */
const DELETED = " (deleted)";

async function tryReadlink(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch {
    return undefined;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}

async function identify(pid: number): Promise<SeenHypervisor | undefined> {
  const text = await readFile(`/proc/${pid}/cmdline`, "latin1");
  const mark = text.split("\0").flatMap((argument) => MARK.exec(argument) ?? []);
  const [, installation, vmId] = mark;
  if (installation === undefined || vmId === undefined) return undefined;
  const log = await tryReadlink(`/proc/${pid}/fd/${STDERR}`);
  const folder = log === undefined ? undefined : dirname(log);
  const folderDeleted = folder !== undefined && log?.endsWith(DELETED) === true && !(await exists(folder));
  return { pid, installation, vmId: Number(vmId), folder, folderDeleted };
}

/** Processes come and go while this looks: one that can't be read any more is not there. */
export async function observeProcesses(): Promise<SeenProcesses> {
  const here = await tryReadlink("/proc/self/ns/net");
  const hypervisors: SeenHypervisor[] = [];
  const managers = new Set<SeenProcesses["managers"][number]>();
  for (const entry of await listFolder("/proc")) {
    if (!/^[1-9]\d*$/.test(entry)) continue;
    const name = (await readTextFile(`/proc/${entry}/comm`).catch(() => undefined))?.trimEnd() ?? "";
    const manager = name === "NetworkManager" ? name : name === "systemd-network" ? "systemd-networkd" : undefined;
    if (manager === undefined && !HYPERVISORS.test(name)) continue;
    // Where the link can't be read, for want of rights, the process is taken for one of this namespace.
    const namespace = await tryReadlink(`/proc/${entry}/ns/net`);
    if (namespace !== undefined && namespace !== here) continue;
    if (manager !== undefined) managers.add(manager);
    else {
      const found = await identify(Number(entry)).catch(() => undefined);
      if (found !== undefined) hypervisors.push(found);
    }
  }
  return { hypervisors, managers: [...managers] };
}
