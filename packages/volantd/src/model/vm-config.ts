/** A VM's own settings over its life: as asked for at its creation, patched, and what of a change waits for the next start. Pure. */
import { isDeepStrictEqual } from "node:util";
import type { CreateVmRequest, VmConfig, VmConfigPatch } from "@volant/contract";
import type { VmSpec } from "./vm-spec.ts";

/** The object without fields that are undefined: an absent field and an undefined one are different types. */
function compact<T extends object>(fields: { readonly [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}

function nonEmpty<T extends object>(fields: T): T | undefined {
  return Object.keys(fields).length === 0 ? undefined : fields;
}

/** The settings that a request for a VM gives, with its own fields where a PATCH will look for them; they win over its `config`. */
export function requestedConfig(request: CreateVmRequest): VmConfig {
  const config = request.config ?? {};
  return compact<VmConfig>({
    ...config,
    plugin: request.plugin ?? config.plugin,
    runtime: request.runtime ?? config.runtime,
    kernel_cmdline: request.kernel_cmdline ?? config.kernel_cmdline,
    resources: nonEmpty(
      compact<NonNullable<VmConfig["resources"]>>({
        cpu_cores: request.cpu_cores ?? config.resources?.cpu_cores,
        memory_mb: request.memory_mb ?? config.resources?.memory_mb,
      }),
    ),
    api: nonEmpty(
      compact<NonNullable<VmConfig["api"]>>({
        host: request.api_host ?? config.api?.host,
        port: request.api_port ?? config.api?.port,
      }),
    ),
  });
}

/** What a patch gives: its fields that are neither absent nor null. */
export function givenFields(patch: VmConfigPatch): VmConfig {
  return Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== null && value !== undefined));
}

/**
 * The settings after a patch: what it gives replaces what was there, whole. `plugin` and `manifest` both say what to run, so that either, given
 * alone, takes the other's place.
 */
export function mergeConfig(current: VmConfig, patch: VmConfigPatch): VmConfig {
  const given = givenFields(patch);
  const { plugin, manifest, ...rest } = { ...current, ...given };
  const onlyPlugin = given.plugin !== undefined && given.manifest === undefined;
  const onlyManifest = given.manifest !== undefined && given.plugin === undefined;
  return compact<VmConfig>({
    ...rest,
    plugin: onlyManifest ? undefined : plugin,
    manifest: onlyPlugin ? undefined : manifest,
  });
}

/** Settings that are read from the configuration itself when a guest is started; the others are resolved into the {@link VmSpec}. */
const READ_AT_START = ["env", "nameservers"] as const satisfies readonly (keyof VmConfig)[];

/** As the store will give it back. */
function plain(value: unknown): unknown {
  return value === undefined ? undefined : JSON.parse(JSON.stringify(value));
}

/**
 * Whether a VM must be started anew for all of `wanted` to be in force.
 *
 * @param address what is leased to it now
 */
export function needsStart(inForce: VmSpec, wanted: VmSpec, address: number | undefined): boolean {
  // A VM's MAC is never changed.
  const { config: oldConfig, reservedAddress: _, mac: _old, ...old } = inForce;
  const { config: newConfig, reservedAddress, mac: _new, ...next } = wanted;
  if (!isDeepStrictEqual(plain(old), plain(next))) return true;
  if (READ_AT_START.some((field) => !isDeepStrictEqual(plain(oldConfig[field]), plain(newConfig[field])))) return true;
  // Kept for it while its mode needs no address.
  return wanted.mode === "bridged" && reservedAddress !== undefined && reservedAddress !== address;
}

/** What the VM will be from its next start on: what the user said last. Settings that are in force at once are read from here. */
export function latestSpec(vm: { readonly spec: VmSpec; readonly next?: VmSpec | undefined }): VmSpec {
  return vm.next ?? vm.spec;
}

/** The spec with the checksum of its initramfs, also in the settings that it came from: what a later change resolves anew is the same file. */
export function pinInitramfs(spec: VmSpec, checksum: string): VmSpec {
  const { config } = spec;
  const initramfs = { ...spec.initramfs, checksum };
  return {
    ...spec,
    initramfs,
    manifest: { ...spec.manifest, initramfs },
    config: {
      ...config,
      ...(config.initramfs === undefined ? {} : { initramfs }),
      ...(config.manifest === undefined || config.initramfs !== undefined
        ? {}
        : { manifest: { ...config.manifest, initramfs } }),
    },
  };
}
