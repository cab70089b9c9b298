/** Which boot and which network namespace this process sees. */
import { readFile, readlink, stat } from "node:fs/promises";
import type { KernelIdentity } from "../setup/observed.ts";
import { listFolder } from "./files.ts";

/** This boot's random id (random(4)) and this process's network namespace (namespaces(7)). */
export async function readKernelIdentity(): Promise<KernelIdentity> {
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  return { bootId, networkNamespace: await readlink("/proc/self/ns/net") };
}

/** Whether a network namespace, named as /proc's links name it, exists: some process is in it, or `ip netns` keeps it. */
export async function isNamespaceAlive(networkNamespace: string): Promise<boolean> {
  for (const name of await listFolder("/proc")) {
    if (!/^[0-9]+$/.test(name)) continue;
    try {
      if ((await readlink(`/proc/${name}/ns/net`)) === networkNamespace) return true;
    } catch {
      // It ended, or it is someone else's.
    }
  }
  for (const name of await listFolder("/run/netns")) {
    try {
      const { ino } = await stat(`/run/netns/${name}`);
      if (networkNamespace === `net:[${ino}]`) return true;
    } catch {
      // It was removed meanwhile.
    }
  }
  return false;
}
