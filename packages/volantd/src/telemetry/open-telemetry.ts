/** Puts together who is told of volantd's work, from what there is to tell. */
import { VOLANT_VERSION, type VmUsageReading } from "@volant/contract";
import type { MetricsUseCases } from "../engine/use-cases.ts";
import type { AddressPool } from "../model/address.ts";
import type { NetworkManager } from "../network/network-manager.ts";
import type { Store } from "../store/store.ts";
import { Metrics } from "./metrics.ts";
import { fanOut, type Telemetry } from "./telemetry.ts";
import { TraceExporter } from "./trace-exporter.ts";
import type { TraceSettings } from "./trace-settings.ts";

export interface TelemetryOptions {
  readonly store: Pick<Store, "countVms" | "vmIds" | "getVm">;
  readonly network: Pick<NetworkManager, "countDropped" | "dropped">;
  readonly pool: AddressPool;
  readonly usage: () => Promise<VmUsageReading>;
  readonly traces: TraceSettings | undefined;
  readonly log: { warn(fields: Readonly<Record<string, unknown>>, message: string): void };
  /** Closes what was opened. */
  readonly cleanup: { add(action: () => unknown): void };
}

/** Metrics always, and traces where they are sent somewhere. */
export function openTelemetry(options: TelemetryOptions): {
  readonly telemetry: Telemetry;
  readonly metrics: MetricsUseCases;
} {
  const { store, network, pool, usage, traces, log, cleanup } = options;
  const records = () => [...store.vmIds()].flatMap((id) => store.getVm(id) ?? []);
  const metrics = new Metrics(VOLANT_VERSION, {
    countVms: () => store.countVms(),
    countAddresses: () => ({
      held: records().filter(({ address }) => address !== undefined).length,
      all: leasable(pool),
    }),
    usage: async () => (await usage()).vms,
    droppedFrames: async () => {
      await network.countDropped();
      return new Map(
        records().flatMap(({ id, spec }) => {
          const frames = network.dropped(id);
          return frames === undefined ? [] : [[spec.name, frames] as const];
        }),
      );
    },
  });
  const listeners: Telemetry[] = [metrics];
  if (traces !== undefined) {
    const exporter = new TraceExporter({ ...traces, version: VOLANT_VERSION, log });
    cleanup.add(() => exporter.close());
    listeners.push(exporter);
  }
  return { telemetry: fanOut(listeners), metrics: { metrics: () => metrics.text() } };
}

/** All but the network's address, the broadcast address and the host's. */
function leasable({ subnet }: AddressPool): number {
  return 2 ** (32 - subnet.prefixLength) - 3;
}
