/** What a VM needs of the host, looked at before it is recorded: a mistake is said to whoever makes it, and not later in a log. */
import { VolantError } from "@volant/contract";
import type { ImageStore } from "../image/image.ts";
import { checkLogName } from "../model/log-name.ts";
import type { ManagedNetwork } from "../model/manifest.ts";
import { checkMemory } from "../model/memory.ts";
import { needsIPAllocation, needsTapDevice } from "../model/network.ts";
import type { PublishedPort } from "../model/published-port.ts";
import { pinInitramfs } from "../model/vm-config.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import { checkUserCmdline } from "../runtime/kernel-cmdline.ts";
import type { NewVm, PluginRecord } from "../store/store.ts";

/**
 * The spec with its initramfs pinned by checksum, once the kernel, the memory and the words for the kernel are right.
 *
 * @throws VolantError `invalid`, `not_ready`, `not_found`, `checksum_mismatch`
 */
export async function prepareVm(images: ImageStore, resolved: VmSpec): Promise<VmSpec> {
  const kernelCmdline = checkUserCmdline(resolved.kernelCmdline);
  const checksum = await images.adopt(resolved.initramfs);
  const image = await images.bootImage(checksum);
  checkMemory(resolved.memoryMib, image.unpackedBytes);
  await images.kernel();
  return { ...pinInitramfs(resolved, checksum), kernelCmdline };
}

/** Names for a new VM's tap, best first; undefined where it needs none. */
function tapNamesFor(spec: VmSpec, network: Pick<NetworkManager, "tapNames">): Iterable<string> | undefined {
  if (!needsTapDevice(spec)) return undefined;
  return spec.tap === undefined ? network.tapNames(spec.name) : [spec.tap];
}

/** What the store is given to make a VM. Its tap's names are there for one look through them. @throws VolantError `invalid` for a name that can't be */
export function newVm(
  spec: VmSpec,
  { network, managed }: { readonly network: Pick<NetworkManager, "tapNames">; readonly managed: ManagedNetwork },
  ports: readonly PublishedPort[],
): NewVm {
  checkLogName(spec.name);
  const pool = needsIPAllocation(spec) ? managed.pool : undefined;
  return { spec, ports, tapNames: tapNamesFor(spec, network), pool };
}

/** Says now what would keep a new VM's network from being made. @throws VolantError as {@link NetworkManager.checkReady} */
export async function checkTapReady(
  spec: VmSpec,
  network: Pick<NetworkManager, "tapNames" | "checkReady">,
): Promise<void> {
  const [tap] = tapNamesFor(spec, network) ?? [];
  if (tap !== undefined) await network.checkReady(tap, spec.bridge, spec.antiSpoof !== false);
}

/** The plugin, if VMs may be made from it. @throws VolantError `not_found`, `disabled` */
export function usablePlugin(name: string, plugin: PluginRecord | undefined): PluginRecord {
  if (plugin === undefined) {
    throw new VolantError("not_found", `plugin "${name}" is not installed`, { hint: "volar plugins list" });
  }
  if (!plugin.enabled) {
    throw new VolantError("disabled", `plugin "${name}" is disabled`, { hint: `volar plugins enable ${name}` });
  }
  return plugin;
}
