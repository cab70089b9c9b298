/** From two readings of what VMs use to what they use now. Pure. */
import type { VmUsage, VmUsageReading } from "@volant/contract";

/** What one VM used between two readings. */
export interface VmRate {
  readonly name: string;
  readonly id: number;
  readonly pid: number;
  /** 100 is one core that does nothing else; absent where its hypervisor was started in between. */
  readonly cpu_percent?: number;
  readonly cpu_cores: number;
  readonly memory_bytes: number;
  readonly memory_mb: number;
  /** Of a VM with a tap; as the guest sees it. */
  readonly rx_bytes_per_second?: number;
  readonly tx_bytes_per_second?: number;
  readonly rx_bytes?: number;
  readonly tx_bytes?: number;
}

export const SORTS = ["cpu", "memory", "network", "name"] as const;
export type Sort = (typeof SORTS)[number];

/** A number that only grows, by second; undefined where it has begun anew. */
function perSecond(before: number | undefined, after: number, seconds: number): number | undefined {
  if (before === undefined || after < before || seconds <= 0) return undefined;
  return (after - before) / seconds;
}

function rateOf(before: VmUsage | undefined, after: VmUsage, seconds: number): VmRate {
  const { name, id, pid, cpu_ms: cpuMs, network, ...memory } = after;
  const same = before?.pid === pid ? before : undefined;
  const cpu = perSecond(same?.cpu_ms, cpuMs, seconds);
  const [rx, tx] = (["rx_bytes", "tx_bytes"] as const).map((counter) =>
    network === undefined ? undefined : perSecond(same?.network?.[counter], network[counter], seconds),
  );
  return {
    name,
    id,
    pid,
    // A thousand milliseconds of a second are the whole of one core.
    ...(cpu === undefined ? {} : { cpu_percent: Math.round(cpu) / 10 }),
    ...memory,
    ...(rx === undefined ? {} : { rx_bytes_per_second: Math.round(rx) }),
    ...(tx === undefined ? {} : { tx_bytes_per_second: Math.round(tx) }),
    ...(network === undefined ? {} : { rx_bytes: network.rx_bytes, tx_bytes: network.tx_bytes }),
  };
}

/** What each VM of the later reading used since the earlier one. */
export function ratesBetween(before: VmUsageReading, after: VmUsageReading): VmRate[] {
  const earlier = new Map(before.vms.map((vm) => [vm.id, vm]));
  const seconds = (after.clock_ms - before.clock_ms) / 1000;
  return after.vms.map((vm) => rateOf(earlier.get(vm.id), vm, seconds));
}

const WEIGHT: Readonly<Record<Exclude<Sort, "name">, (rate: VmRate) => number>> = {
  cpu: ({ cpu_percent: percent = 0 }) => percent,
  memory: ({ memory_bytes: bytes }) => bytes,
  network: ({ rx_bytes_per_second: rx = 0, tx_bytes_per_second: tx = 0 }) => rx + tx,
};

/** The greatest use first, or by name; of the named VMs only, where there are some. */
export function arrange(rates: readonly VmRate[], sort: Sort, names: readonly string[] = []): VmRate[] {
  const chosen = names.length === 0 ? rates : rates.filter(({ name }) => names.includes(name));
  const byName = (a: VmRate, b: VmRate) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  if (sort === "name") return chosen.toSorted(byName);
  return chosen.toSorted((a, b) => WEIGHT[sort](b) - WEIGHT[sort](a) || byName(a, b));
}
