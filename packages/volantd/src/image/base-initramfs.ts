/** Volant's own initramfs: the guest's agent and the drivers of the machine it runs on. Pure. */
import { createHash } from "node:crypto";
import {
  BOOT_MODULES,
  loadOrder,
  TRANSPORT_MODULES,
  VSOCK_MODULE,
  type KernelModuleRecord,
  type VirtioTransport,
} from "@volant/host";
import { encodeNewc, type NewcEntry } from "./newc.ts";

/** Mount points of the agent, and its own folder. */
const FOLDERS = ["dev", "proc", "sys", "run", "tmp", ".volant", ".volant/modules"];

/** The kernel's modules that every guest on such a machine loads at boot, each after all that it depends on. */
export function bootModules(
  modules: readonly KernelModuleRecord[],
  transport: VirtioTransport,
  vsock = false,
): KernelModuleRecord[] {
  const byName = new Map(modules.map((module) => [module.name, module]));
  const wanted = [TRANSPORT_MODULES[transport], ...BOOT_MODULES, ...(vsock ? [VSOCK_MODULE] : [])];
  return loadOrder(wanted, byName).map((name) => byName.get(name) as KernelModuleRecord);
}

/** What a base initramfs is made of, in one digest: it is built again when this changes. */
export function baseDigest(agentSha256: string, modules: readonly KernelModuleRecord[]): string {
  const parts = ["base-1", agentSha256, ...modules.map((module) => `${module.name} ${module.sha256}`)];
  return createHash("sha256").update(parts.join("\n")).digest("hex");
}

/**
 * The archive.
 *
 * @param modules in load order; the agent loads them by name, in lexical order
 */
export function encodeBaseInitramfs(
  agent: Uint8Array,
  modules: readonly { readonly name: string; readonly content: Uint8Array }[],
): Buffer {
  const folders = FOLDERS.map((path): NewcEntry => ({
    path,
    kind: "directory",
    mode: path === "tmp" ? 0o1777 : 0o755,
  }));
  const files = modules.map(({ name, content }, index): NewcEntry => ({
    path: `.volant/modules/${String(index).padStart(3, "0")}-${name}.ko`,
    kind: "file",
    mode: 0o644,
    content,
  }));
  return encodeNewc([
    ...folders,
    // The kernel opens /dev/console for the first program before anything is mounted; without it that program has no output.
    { path: "dev/console", kind: "character-device", mode: 0o600, device: { major: 5, minor: 1 } },
    ...files,
    { path: ".volant/init", kind: "file", mode: 0o755, content: agent },
  ]);
}
