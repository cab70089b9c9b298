import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test, { after } from "node:test";
import { checkSchema, VmUsageReading } from "@volant/contract";
import { parseSubnet } from "../model/address.ts";
import { tapNames } from "../model/tap-name.ts";
import { readLinkTraffic, readProcessUsage } from "../runtime/process-usage.ts";
import { startTicksOf } from "../runtime/process-table.ts";
import type { HypervisorProcess } from "../runtime/runtime.ts";
import { SqliteStore } from "../store/sqlite-store.ts";
import { vmSpec } from "../testing/vm-spec.ts";
import { UsageService, type UsageServiceOptions } from "./usage-service.ts";

const directory = mkdtempSync(join(tmpdir(), "usage-"));
const now = () => new Date(Date.UTC(2026, 0, 1));
const store = SqliteStore.open({ path: join(directory, "state.db"), now, newInstallation: () => "abcdef01" });
const pool = { subnet: parseSubnet("10.0.0.0/29"), gateway: 0x0a000001 };
const web = store.createVm({ spec: vmSpec("web", { cpuCores: 2 }), tapNames: tapNames("web"), pool });
const quiet = store.createVm({ spec: vmSpec("quiet", { mode: "vsock" }), tapNames: undefined, pool: undefined });
store.createVm({ spec: vmSpec("off"), tapNames: tapNames("off"), pool });
after(() => {
  store.close();
  rmSync(directory, { recursive: true });
});

let clockMs = 0;
const processes = new Map<number, HypervisorProcess>(
  [web, quiet].map(({ id }) => [id, { vmId: id, generation: 1, pid: 100 + id, startTicks: 7n }]),
);

function service(changes: Partial<UsageServiceOptions> = {}): UsageService {
  return new UsageService({
    store,
    processOf: (vmId) => processes.get(vmId),
    readProcess: ({ pid }) => ({ cpuMs: pid, residentBytes: 4096 }),
    readTraffic: () => new Map([["vttap-web", { rxBytes: 1, rxPackets: 2, txBytes: 3, txPackets: 4 }]]),
    now,
    monotonicMs: () => clockMs,
    ...changes,
  });
}

test("VMs that have a hypervisor are read; traffic is as the guest sees it, and absent where there is no tap", async () => {
  const reading = checkSchema(VmUsageReading, await service().read(), "reading");
  const common = { memory_bytes: 4096, memory_mb: 128 };
  assert.deepEqual(reading.vms, [
    {
      ...common,
      id: web.id,
      name: "web",
      pid: 100 + web.id,
      cpu_ms: 100 + web.id,
      cpu_cores: 2,
      network: { rx_bytes: 3, tx_bytes: 1, rx_packets: 4, tx_packets: 2 },
    },
    { ...common, id: quiet.id, name: "quiet", pid: 100 + quiet.id, cpu_ms: 100 + quiet.id, cpu_cores: 1 },
  ]);
});

test("whoever asks soon after somebody else gets the same reading; a failed one is made again", async () => {
  let reads = 0;
  const usage = service({
    readTraffic: () => {
      reads += 1;
      if (reads === 1) throw new Error("this time not");
      return new Map();
    },
  });
  await assert.rejects(usage.read(), /this time not/);
  const [first, second] = await Promise.all([usage.read(), usage.read()]);
  assert.equal(first, second);
  assert.equal(reads, 2);
  clockMs += 1000;
  assert.equal((await usage.read()).clock_ms, clockMs);
  assert.equal(reads, 3);
});

test("a process that has ended, or whose pid is another's by now, is left out", async () => {
  const child = spawn(process.execPath, ["-e", "for (;;);"], { stdio: "ignore" });
  await once(child, "spawn");
  const pid = child.pid ?? 0;
  const startTicks = startTicksOf(pid) ?? 0n;
  try {
    const busy = async (): Promise<number> => {
      for (;;) {
        const used = readProcessUsage({ pid, startTicks });
        assert.ok(used !== undefined);
        if (used.cpuMs > 0 && used.residentBytes > 1_000_000) return used.cpuMs;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    assert.ok((await busy()) > 0);
    assert.equal(readProcessUsage({ pid, startTicks: startTicks + 1n }), undefined);
  } finally {
    child.kill("SIGKILL");
  }
  await once(child, "exit");
  assert.equal(readProcessUsage({ pid, startTicks }), undefined);
});

test("links of this network namespace are counted", () => {
  assert.ok(readLinkTraffic().has("lo"));
});
