import type { VmRate } from "../commands/top/rates.ts";
import { formatTable } from "../table.ts";

const KIB = 1024;

/** `0 B`, `1.5 KiB`, `12 MiB`: two digits that say something, and no more. */
export function bytesText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [value, unit] = [bytes, 0];
  while (value >= KIB && unit < units.length - 1) {
    value /= KIB;
    unit += 1;
  }
  return `${unit > 0 && value < 10 ? value.toFixed(1) : value.toFixed(0)} ${units[unit]}`;
}

function rateText(bytesPerSecond: number | undefined): string {
  return bytesPerSecond === undefined ? "" : `${bytesText(bytesPerSecond)}/s`;
}

/** What VMs use, as a table. */
export function usageTable(rates: readonly VmRate[]): string {
  return formatTable([
    ["NAME", "CPU", "CORES", "MEMORY", "OF", "RECEIVED", "SENT", "PID"],
    ...rates.map((rate) => [
      rate.name,
      rate.cpu_percent === undefined ? "" : `${rate.cpu_percent.toFixed(1)} %`,
      String(rate.cpu_cores),
      bytesText(rate.memory_bytes),
      `${rate.memory_mb} MiB`,
      rateText(rate.rx_bytes_per_second),
      rateText(rate.tx_bytes_per_second),
      String(rate.pid),
    ]),
  ]);
}

/** One line of what all of them use together. */
export function usageSummary(rates: readonly VmRate[]): string {
  const sum = (pick: (rate: VmRate) => number) => rates.reduce((total, rate) => total + pick(rate), 0);
  const cpu = sum(({ cpu_percent: percent = 0 }) => percent);
  const [memory, rx, tx] = [
    sum(({ memory_bytes: bytes }) => bytes),
    sum(({ rx_bytes_per_second: bytes = 0 }) => bytes),
    sum(({ tx_bytes_per_second: bytes = 0 }) => bytes),
  ];
  const count = rates.length === 1 ? "1 VM runs" : `${rates.length} VMs run`;
  return `${count}: ${cpu.toFixed(1)} % of a core, ${bytesText(memory)} of memory, ${bytesText(rx)}/s received, ${bytesText(tx)}/s sent`;
}
