/**
 * What holding a guest to its address costs: how fast a real guest sends and receives, with the rules and without, and with the
 * guard that its frames go through first. One guest, one run, all ways in each round and each time in another order. Beside the speed, which has much
 * to do with who else uses the processors, it takes the time that the hypervisor's threads were on one: bridge and rules work in it.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import type { Vm } from "@volant/contract";
import { findProgram } from "@volant/host";
import { GuestPolicy, TapGuard } from "@volant/host/guest-policy";
import { Netlink } from "@volant/netlink";
import { enterOwnNamespace } from "../test/namespace.ts";
import { type House, openHouse } from "../test/vm/house.ts";
import { buildProbePlugin } from "../test/vm/probe-plugin.ts";
import { onInterrupt } from "./interrupt.ts";
import { type BenchResult, ratio, resultTable } from "./result.ts";

const ROUNDS = 15;
const MIB = 1024 * 1024;
/** Of each transfer: about a second each under emulation, where a guest receives by way of a script. */
const TRANSFER_BYTES = 64 * MIB;
const UPLOAD_BYTES = 4 * MIB;

/** MiB per second from the guest's web server to here. */
async function download(address: string): Promise<number> {
  const started = performance.now();
  const response = await fetch(`http://${address}/big`);
  let bytes = 0;
  assert.ok(response.body !== null);
  for await (const part of response.body) bytes += (part as Uint8Array).length;
  assert.equal(bytes, TRANSFER_BYTES);
  return bytes / MIB / ((performance.now() - started) / 1000);
}

/** MiB per second from here to a program in the guest that throws it away. */
async function upload(address: string): Promise<number> {
  const started = performance.now();
  const outgoing = request(`http://${address}/cgi-bin/sink`, {
    method: "POST",
    headers: { "content-length": UPLOAD_BYTES },
  });
  const part = Buffer.alloc(64 * 1024);
  for (let left = UPLOAD_BYTES; left > 0; left -= part.length) {
    if (!outgoing.write(part)) await once(outgoing, "drain");
  }
  outgoing.end();
  const [response] = (await once(outgoing, "response")) as [NodeJS.ReadableStream];
  response.resume();
  await once(response, "end");
  return UPLOAD_BYTES / MIB / ((performance.now() - started) / 1000);
}

/** Milliseconds that a process's threads have been on a processor (Documentation/scheduler/sched-stats.rst). */
function processorMs(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const nanoseconds = threads.map((id) =>
    Number(readFileSync(`/proc/${pid}/task/${id}/schedstat`, "utf8").split(" ")[0]),
  );
  return nanoseconds.reduce((sum, one) => sum + one, 0) / 1e6;
}

async function openGuest(house: House): Promise<Vm> {
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  const resources = { cpu_cores: 1, memory_mb: 256 };
  await house.volarDone("plugins", "install", buildProbePlugin(directory, { resources }));
  const vm = await house.volarJson<Vm>("vms", "create", "bench", "--plugin", "probe", "--wait");
  const sink = "#!/bin/busybox sh\\nbusybox cat > /dev/null\\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\\n";
  const script = [
    `busybox dd if=/dev/zero of=/www/big bs=1M count=${TRANSFER_BYTES / MIB} 2>/dev/null`,
    `printf '${sink.replaceAll("'", "'\\''")}' > /www/cgi-bin/sink`,
    "busybox chmod 755 /www/cgi-bin/sink",
  ];
  await house.volarDone("vms", "exec", "bench", "--", "sh", "-c", script.join(" && "));
  return vm;
}

/** Runs in the caller's network namespace, which must be one of its own. */
export async function benchPolicy(): Promise<BenchResult[]> {
  const house = await openHouse();
  const uninterrupted = onInterrupt(() => house.close());
  const netlink = await Netlink.open();
  try {
    const vm = await openGuest(house);
    const { installation } = await house.api<{ readonly installation: string }>("/api/v1/system/info");
    const nft = await findProgram("nft");
    const link = await netlink.links.get(vm.network.tap ?? "");
    const { pid } = vm;
    assert.ok(nft !== undefined && link !== undefined && pid !== undefined);
    // volantd would put back what is taken away here; guests go on without it.
    await house.stopVolantd();
    const policy = new GuestPolicy({ installation, nft });
    const guard = new TapGuard(netlink);
    const entry = {
      vmId: vm.id,
      tap: link.name,
      mac: vm.mac_address,
      mode: "bridged",
      addresses: [vm.ip_address],
      antiSpoof: true,
    } as const;
    const rules = async (on: boolean): Promise<void> => {
      await policy.reconcile(on ? [entry] : []);
      if (!on) await policy.removeTable();
    };
    const ways = {
      neither: [false, false],
      rules: [true, false],
      both: [true, true],
    } as const;
    const list = () => ({ sent: [] as number[], processor: [] as number[], received: [] as number[] });
    const samples = { neither: list(), rules: list(), both: list() };
    const order = ["neither", "rules", "both"] as const;
    // One round more than counted: the first warms the guest up.
    for (let round = 0; round <= ROUNDS; round += 1) {
      for (const way of [...order.slice(round % order.length), ...order.slice(0, round % order.length)]) {
        const [withRules, withGuard] = ways[way];
        await rules(withRules);
        await (withGuard ? guard.bind(link.index) : guard.unbind(link.index));
        const before = processorMs(pid);
        const sent = await download(vm.ip_address);
        const processor = (processorMs(pid) - before) / (TRANSFER_BYTES / MIB);
        const received = await upload(vm.ip_address);
        const speeds = `${sent.toFixed(1)} and ${received.toFixed(1)} MiB/s`;
        process.stderr.write(`round ${round}, ${way}: ${speeds}, ${processor.toFixed(2)} ms/MiB\n`);
        if (round === 0) continue;
        samples[way].sent.push(sent);
        samples[way].processor.push(processor);
        samples[way].received.push(received);
      }
    }
    await rules(true);
    await guard.bind(link.index);
    await house.startVolantd();
    const { neither, rules: only, both } = samples;
    const unit = "MiB/s";
    const without = (rival: readonly number[]) => ({ name: "neither rules nor guard", samples: rival });
    return [
      {
        name: "a guest sends, with the anti-spoofing rules",
        unit,
        ours: only.sent,
        rival: without(neither.sent),
        target: "at least 0.95 × without",
        ok: ratio(only.sent, neither.sent) >= 0.95,
      },
      {
        name: "the same with rules and guard, as guests run",
        unit,
        ours: both.sent,
        rival: without(neither.sent),
        target: "at least 0.95 × without",
        ok: ratio(both.sent, neither.sent) >= 0.95,
      },
      {
        name: "the hypervisor's time on a processor for it, with rules and guard",
        unit: "ms/MiB",
        ours: both.processor,
        rival: without(neither.processor),
        target: "at most 1.05 × without",
        ok: ratio(both.processor, neither.processor) <= 1.05,
      },
      {
        name: "a guest receives, with rules and guard",
        unit,
        ours: both.received,
        rival: without(neither.received),
        target: "written down",
        ok: true,
      },
    ];
  } finally {
    await netlink.close();
    uninterrupted();
    await house.close();
    rmSync(house.directory, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  enterOwnNamespace(import.meta.url);
  process.stdout.write(`${resultTable(await benchPolicy())}\n`);
}
