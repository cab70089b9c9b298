import assert from "node:assert/strict";
import test from "node:test";
import type { VmUsage, VmUsageReading } from "@volant/contract";
import { bytesText, usageSummary, usageTable } from "../../views/usage.ts";
import { arrange, ratesBetween } from "./rates.ts";
import { fit } from "./screen.ts";

function usage(name: string, changes: Partial<VmUsage> = {}): VmUsage {
  const id = [...name].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 0);
  return { id, name, pid: 1, cpu_ms: 0, memory_bytes: 1024, cpu_cores: 1, memory_mb: 128, ...changes };
}

function reading(clockMs: number, ...vms: VmUsage[]): VmUsageReading {
  return { taken_at: "2026-01-01T00:00:00.000Z", clock_ms: clockMs, vms };
}

function traffic(rx: number, tx: number): NonNullable<VmUsage["network"]> {
  return { rx_bytes: rx, tx_bytes: tx, rx_packets: 0, tx_packets: 0 };
}

test("rates are reckoned by volantd's clock: half a core is 50 %, and bytes are by second", () => {
  const before = reading(1000, usage("web", { cpu_ms: 100, network: traffic(0, 500) }));
  const [rate] = ratesBetween(before, reading(3000, usage("web", { cpu_ms: 1100, network: traffic(4000, 500) })));
  assert.equal(rate?.cpu_percent, 50);
  assert.deepEqual([rate?.rx_bytes_per_second, rate?.tx_bytes_per_second, rate?.rx_bytes], [2000, 0, 4000]);
});

test("a VM that was started in between has no rate yet, and neither has one whose tap was made anew", () => {
  const before = reading(0, usage("restarted", { cpu_ms: 900 }), usage("web", { network: traffic(9, 9) }));
  const after = reading(
    1000,
    usage("restarted", { pid: 2, cpu_ms: 950 }),
    usage("new", { cpu_ms: 5 }),
    usage("web", { network: traffic(1, 1) }),
  );
  const [restarted, made, web] = ratesBetween(before, after);
  assert.deepEqual([restarted?.cpu_percent, made?.cpu_percent, web?.cpu_percent], [undefined, undefined, 0]);
  assert.deepEqual([web?.rx_bytes_per_second, web?.rx_bytes], [undefined, 1]);
  assert.equal(ratesBetween(before, reading(1000)).length, 0, "one that has ended is not shown");
});

test("the greatest use comes first, equal ones by name; only named VMs where there are names", () => {
  const before = reading(0, usage("a"), usage("bb"), usage("ccc"));
  const after = reading(1000, usage("ccc", { cpu_ms: 10 }), usage("bb", { cpu_ms: 10, memory_bytes: 9 }), usage("a"));
  const rates = ratesBetween(before, after);
  const names = (...args: Parameters<typeof arrange>) => arrange(...args).map(({ name }) => name);
  assert.deepEqual(names(rates, "cpu"), ["bb", "ccc", "a"]);
  assert.deepEqual(names(rates, "memory"), ["a", "ccc", "bb"]);
  assert.deepEqual(names(rates, "network"), ["a", "bb", "ccc"]);
  assert.deepEqual(names(rates, "name", ["ccc", "a"]), ["a", "ccc"]);
});

test("sizes have two digits that say something", () => {
  const sizes = [0, 1023, 1024, 1536, 10_240, 5 * 1024 ** 3, 1024 ** 6];
  assert.deepEqual(sizes.map(bytesText), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "10 KiB", "5.0 GiB", "1048576 TiB"]);
});

test("a table has all its columns, also for a VM of which nothing is known yet", () => {
  const rates = ratesBetween(reading(0), reading(1000, usage("web")));
  assert.equal(
    usageTable(rates),
    "NAME  CPU  CORES  MEMORY   OF       RECEIVED  SENT  PID\nweb   -    1      1.0 KiB  128 MiB  -         -     1\n",
  );
  assert.match(usageSummary(rates), /^1 VM runs: 0\.0 % of a core, 1\.0 KiB of memory, 0 B\/s received, 0 B\/s sent$/);
});

test("what does not fit the screen is counted and not shown, and no line is wider than it", () => {
  assert.deepEqual(fit(["one", "two", "three"], 10, 3), ["one", "two", "thr"]);
  assert.deepEqual(fit(["1", "2", "3", "4"], 4, 80), ["1", "2", "and 2 more"]);
});
