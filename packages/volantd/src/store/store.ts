/**
 * The port to what must be remembered: what users asked for. What the host shows is never in here, but for `status` and `reason`, which are kept for
 * lists to filter and sort by. Every method is one transaction and durable when it returns.
 */
import type { Manifest, VmStatus } from "@volant/contract";
import type { AddressPool } from "../model/address.ts";
import type { Desired } from "../model/vm-state.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import type { VmFilter } from "../engine/use-cases.ts";

export interface VmRecord {
  /** Never reused, not even after a deletion. */
  readonly id: number;
  readonly spec: VmSpec;
  readonly mac: string;
  /** vsock context id, 3 or above. */
  readonly cid: number;
  readonly tap: string | undefined;
  readonly address: number | undefined;
  readonly desired: Desired;
  readonly generation: number;
  readonly startedGeneration: number;
  readonly runningGeneration: number;
  readonly endedGeneration: number;
  readonly endedStatus: "stopped" | "crashed" | undefined;
  readonly endedReason: string | undefined;
  readonly status: VmStatus;
  readonly reason: string | undefined;
  /** RFC 3339. */
  readonly createdAt: string;
  readonly updatedAt: string;
}

export interface NewVm {
  readonly spec: VmSpec;
  /** Names for its tap, the first free one is taken; undefined where it needs none. */
  readonly tapNames: Iterable<string> | undefined;
  /** Where its address comes from; undefined where it needs none. */
  readonly pool: AddressPool | undefined;
}

/** What a user wants of a VM from now on. */
export interface Intent {
  readonly desired: Desired;
  /** A start or restart: the generation is raised. */
  readonly start: boolean;
  /** A lease outside this pool is exchanged for one inside it; given with a start. */
  readonly pool?: AddressPool | undefined;
}

export interface PluginRecord {
  readonly name: string;
  readonly enabled: boolean;
  readonly manifest: Manifest;
  readonly createdAt: string;
  readonly updatedAt: string;
}

export interface VmCounts {
  readonly total: number;
  readonly byStatus: Readonly<Record<string, number>>;
  readonly byRuntime: Readonly<Record<string, number>>;
}

export interface Store {
  /** Eight hexadecimal digits, made once at random; marks what is ours on this host. */
  readonly installation: string;

  /** Takes the name, id, MAC, context id, tap name and lease. @throws VolantError `exists`, `exhausted` */
  createVm(vm: NewVm): VmRecord;
  getVm(id: number): VmRecord | undefined;
  findVm(name: string): VmRecord | undefined;
  /** `total` counts before paging. */
  listVms(filter: VmFilter): { readonly vms: readonly VmRecord[]; readonly total: number };
  vmIds(): readonly number[];
  /** Id of the VM that an address is leased to; undefined where it is free or resting. */
  vmWithAddress(address: number): number | undefined;
  countVms(): VmCounts;
  /** @throws VolantError `exhausted`; Error when there is no such VM */
  setIntent(id: number, intent: Intent): VmRecord;
  recordStarted(id: number, generation: number): void;
  recordRunning(id: number, generation: number): void;
  recordEnd(id: number, generation: number, end: { status: "stopped" | "crashed"; reason: string | undefined }): void;
  /** What lists show. */
  recordStatus(id: number, status: VmStatus, reason: string | undefined): void;
  /** Gives everything that {@link createVm} took back. Its address rests before it is leased again. */
  deleteVm(id: number): void;

  /** @throws VolantError `exists` */
  createPlugin(manifest: Manifest, enabled: boolean): PluginRecord;
  findPlugin(name: string): PluginRecord | undefined;
  listPlugins(): readonly PluginRecord[];
  /** Undefined when there is no such plugin. */
  setPluginEnabled(name: string, enabled: boolean): PluginRecord | undefined;
  /** Whether there was one. @throws VolantError `in_use` while a VM was made from it */
  deletePlugin(name: string): boolean;
  /** Checksums and URLs of the files that VMs and plugins boot from. */
  initramfsInUse(): readonly { readonly url: string; readonly checksum?: string }[];

  close(): void;
}
