/** What VMs use of the host, read when somebody asks. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { VmUsage, VmUsageReading } from "@volant/contract";
import type { LinkTraffic } from "../model/process-usage.ts";
import type { ProcessUsage } from "../runtime/process-usage.ts";
import type { HypervisorProcess } from "../runtime/runtime.ts";
import { sharedFor } from "../shared-answer.ts";
import type { Store } from "../store/store.ts";
import type { UsageUseCases } from "./use-cases.ts";

export interface UsageServiceOptions {
  readonly store: Pick<Store, "vmIds" | "getVm">;
  /** The VM's hypervisor as last seen. */
  readonly processOf: (vmId: number) => HypervisorProcess | undefined;
  readonly readProcess: (process: HypervisorProcess) => ProcessUsage | undefined;
  readonly readTraffic: () => ReadonlyMap<string, LinkTraffic>;
  readonly now: () => Date;
  readonly monotonicMs: () => number;
}

/** Reads of /proc take microseconds each and never block: so many are done before others get their turn. */
const BATCH = 50;
/** Whoever asks so soon after somebody else gets the same reading. */
const FRESH_MS = 250;

export class UsageService implements UsageUseCases {
  readonly #options: UsageServiceOptions;
  /** Of all VMs that have a hypervisor. */
  readonly read: () => Promise<VmUsageReading>;

  constructor(options: UsageServiceOptions) {
    this.#options = options;
    this.read = sharedFor(FRESH_MS, () => this.#read(), options.monotonicMs);
  }

  async #read(): Promise<VmUsageReading> {
    const { store, processOf, readTraffic, now, monotonicMs } = this.#options;
    const [takenAt, clockMs] = [now().toISOString(), monotonicMs()];
    const traffic = readTraffic();
    const vms: VmUsage[] = [];
    let count = 0;
    for (const id of store.vmIds()) {
      const process = processOf(id);
      if (process === undefined) continue;
      count += 1;
      if (count % BATCH === 0) await nextTurn();
      const usage = this.#usageOf(id, process, traffic);
      if (usage !== undefined) vms.push(usage);
    }
    return { taken_at: takenAt, clock_ms: clockMs, vms };
  }

  #usageOf(id: number, process: HypervisorProcess, traffic: ReadonlyMap<string, LinkTraffic>): VmUsage | undefined {
    const record = this.#options.store.getVm(id);
    const used = record === undefined ? undefined : this.#options.readProcess(process);
    // Deleted, or ended, since it was last seen.
    if (record === undefined || used === undefined) return undefined;
    const counted = record.tap === undefined ? undefined : traffic.get(record.tap);
    return {
      id,
      name: record.spec.name,
      pid: process.pid,
      cpu_ms: used.cpuMs,
      memory_bytes: used.residentBytes,
      cpu_cores: record.spec.cpuCores,
      memory_mb: record.spec.memoryMib,
      ...(counted === undefined ? {} : { network: asTheGuestSees(counted) }),
    };
  }
}

/** On a tap, what the host received is what the guest sent. */
function asTheGuestSees({ rxBytes, rxPackets, txBytes, txPackets }: LinkTraffic): NonNullable<VmUsage["network"]> {
  return { rx_bytes: txBytes, tx_bytes: rxBytes, rx_packets: txPackets, tx_packets: rxPackets };
}
