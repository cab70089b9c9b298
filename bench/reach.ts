/**
 * What reaching into a guest costs: `volar vms forward` and the proxy over the agent's link, against TCP straight to the same bridged guest. Same programs in the
 * guest, same bytes, same client; each round measures both, one after the other.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { request, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Vm } from "@volant/contract";
import { type House, openHouse, root } from "../test/vm/house.ts";
import { buildProbePlugin } from "../test/vm/probe-plugin.ts";
import { onInterrupt } from "./interrupt.ts";
import { type BenchResult, median } from "./result.ts";

/** How the agent's data travels, and the settings under which it does. */
interface Transport {
  readonly name: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Where set-up leaves the program that serves vsock devices. */
const VSOCK_PROGRAM = join(root, ".toolchain/vhost-device-vsock/bin/vhost-device-vsock");

const ROUNDS = 5;
const MIB = 1024 * 1024;
const BULK_MIB = 16;
const ECHOES = 300;
const GETS = 20;
const BYTES_PER_MB = 1e6;

/** Services in the guest, each a process for a connection. Whole 64 KiB blocks: a slow copier would be what is measured. */
const SERVICES = {
  echo: { port: 9000, command: ["/bin/busybox", "cat"] },
  sink: { port: 9001, command: ["sh", "-c", "busybox dd of=/dev/null bs=64k 2>/dev/null; echo done"] },
  source: { port: 9002, command: ["sh", "-c", `busybox dd if=/dev/zero bs=64k count=${BULK_MIB * 16} 2>/dev/null`] },
} as const;
type Service = keyof typeof SERVICES;
const SERVICE_NAMES = Object.keys(SERVICES) as Service[];

/** Where a client finds the services and the workload's pages. */
interface Way {
  readonly host: string;
  readonly ports: Readonly<Record<Service, number>>;
  /** Base URL of the workload, without a slash at its end. */
  readonly pages: string;
}

async function dial({ host, ports }: Way, service: Service): Promise<Socket> {
  const socket = connect({ host, port: ports[service], allowHalfOpen: true, noDelay: true });
  await once(socket, "connect");
  return socket;
}

/** Milliseconds of one small message there and back, the median of many on one connection. */
async function echoMs(way: Way): Promise<number> {
  const socket = await dial(way, "echo");
  const message = Buffer.alloc(64, "x");
  const samples: number[] = [];
  for (let count = 0; count < ECHOES; count += 1) {
    const started = performance.now();
    socket.write(message);
    let missing = message.length;
    while (missing > 0) missing -= ((await once(socket, "data")) as [Buffer])[0].length;
    samples.push(performance.now() - started);
  }
  socket.destroy();
  return median(samples);
}

function megabytesPerSecond(bytes: number, started: number): number {
  return bytes / BYTES_PER_MB / ((performance.now() - started) / 1000);
}

async function drain(stream: NodeJS.ReadableStream): Promise<number> {
  let bytes = 0;
  stream.on("data", (part: Buffer) => (bytes += part.length));
  await once(stream, "end");
  return bytes;
}

async function intoGuest(way: Way): Promise<number> {
  const socket = await dial(way, "sink");
  const body = Buffer.alloc(BULK_MIB * MIB);
  const started = performance.now();
  socket.end(body);
  // The guest's word comes only when it has read everything.
  assert.equal(await drain(socket), "done\n".length);
  return megabytesPerSecond(body.length, started);
}

async function outOfGuest(way: Way): Promise<number> {
  const started = performance.now();
  const socket = await dial(way, "source");
  const bytes = await drain(socket);
  socket.destroy();
  assert.equal(bytes, BULK_MIB * MIB);
  return megabytesPerSecond(bytes, started);
}

async function get(url: string): Promise<number> {
  const outgoing = request(url, { agent: false });
  outgoing.end();
  const [answer] = (await once(outgoing, "response")) as [IncomingMessage];
  assert.equal(answer.statusCode, 200, url);
  return drain(answer);
}

async function getMs(way: Way): Promise<number> {
  const samples: number[] = [];
  for (let count = 0; count < GETS; count += 1) {
    const started = performance.now();
    assert.equal(await get(`${way.pages}/`), "probe\n".length);
    samples.push(performance.now() - started);
  }
  return median(samples);
}

async function download(way: Way): Promise<number> {
  const started = performance.now();
  const bytes = await get(`${way.pages}/bulk`);
  assert.equal(bytes, BULK_MIB * MIB);
  return megabytesPerSecond(bytes, started);
}

interface Measurement {
  readonly name: string;
  readonly unit: string;
  readonly work: (way: Way) => Promise<number>;
}

const MEASUREMENTS: readonly Measurement[] = [
  { name: "forward: 64 bytes there and back", unit: "ms", work: echoMs },
  { name: "forward: 16 MiB into the guest", unit: "MB/s", work: intoGuest },
  { name: "forward: 16 MiB out of the guest", unit: "MB/s", work: outOfGuest },
  { name: "proxy: a page of 6 bytes", unit: "ms", work: getMs },
  { name: "proxy: a file of 16 MiB", unit: "MB/s", work: download },
];

/** Starts the services in the guest, and returns once all of them listen. */
async function startServices(house: House, vm: string): Promise<ChildProcess[]> {
  await house.volarDone(
    "vms",
    "exec",
    vm,
    "--",
    "busybox",
    "dd",
    "if=/dev/zero",
    "of=/www/bulk",
    "bs=1M",
    `count=${BULK_MIB}`,
  );
  const children = SERVICE_NAMES.map((name) => {
    const { port, command } = SERVICES[name];
    const argv = ["vms", "exec", vm, "--", "busybox", "nc", "-ll", "-p", String(port), "-e", ...command];
    return spawn(join(root, "bin/volar"), argv, { env: house.environment, stdio: ["pipe", "ignore", "inherit"] });
  });
  // The kernel lists ports in hexadecimal (proc_pid_net(5), `tcp`).
  const ports = SERVICE_NAMES.map((name) => SERVICES[name].port.toString(16).toUpperCase());
  const wait = ports.map((port) => `until busybox grep -q ':${port} ' /proc/net/tcp*; do busybox usleep 50000; done`);
  await house.volarDone("vms", "exec", vm, "--", "sh", "-c", wait.join("; "));
  return children;
}

/** `volar vms forward` for every service; its ports on this machine. */
async function startForward(house: House, vm: string): Promise<[ChildProcess, Way["ports"]]> {
  const pairs = SERVICE_NAMES.map((name) => `0:${SERVICES[name].port}`);
  const child = spawn(join(root, "bin/volar"), ["vms", "forward", vm, ...pairs], {
    env: house.environment,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ports: Partial<Record<Service, number>> = {};
  for await (const line of createInterface({ input: child.stdout })) {
    const [, here, there] = /^forwarding 127\.0\.0\.1:(\d+) to port (\d+) /.exec(line) ?? [];
    const name = SERVICE_NAMES.find((each) => SERVICES[each].port === Number(there));
    if (name !== undefined) ports[name] = Number(here);
    if (Object.keys(ports).length === SERVICE_NAMES.length) break;
  }
  return [child, ports as Way["ports"]];
}

async function benchTransport(transport: Transport): Promise<BenchResult[]> {
  const house = await openHouse({ env: transport.env });
  const children: ChildProcess[] = [];
  const close = async (): Promise<void> => {
    for (const child of children) child.kill();
    await house.close();
  };
  const uninterrupted = onInterrupt(close);
  try {
    const directory = join(house.directory, "probe");
    mkdirSync(directory);
    const resources = { cpu_cores: 1, memory_mb: 256 };
    await house.volarDone("plugins", "install", buildProbePlugin(directory, { resources }));
    const vm = await house.volarJson<Vm>("vms", "create", "bench", "--plugin", "probe", "--wait");
    children.push(...(await startServices(house, vm.name)));
    const [forward, ports] = await startForward(house, vm.name);
    children.push(forward);
    const own = Object.fromEntries(SERVICE_NAMES.map((name) => [name, SERVICES[name].port])) as Way["ports"];
    const direct: Way = { host: vm.ip_address, ports: own, pages: `http://${vm.ip_address}` };
    const base = `http://127.0.0.1:7777/api/v1/vms/${vm.name}/agent`;
    const ours: Way = { host: "127.0.0.1", ports, pages: base };
    const samples = MEASUREMENTS.map(() => ({ ours: [] as number[], direct: [] as number[] }));
    // One round more than counted: the first warms everything up.
    for (let round = 0; round <= ROUNDS; round += 1) {
      for (const [index, { work }] of MEASUREMENTS.entries()) {
        const rival = await work(direct);
        const own = await work(ours);
        if (round === 0) continue;
        samples[index]?.direct.push(rival);
        samples[index]?.ours.push(own);
      }
    }
    return MEASUREMENTS.map(({ name, unit }, index) => ({
      name: `${name}, over ${transport.name}`,
      unit,
      ours: samples[index]?.ours ?? [],
      rival: { name: "TCP to its address", samples: samples[index]?.direct ?? [] },
      target: "none: for information",
      ok: true,
    }));
  } finally {
    uninterrupted();
    await close();
  }
}

/** Runs in the caller's network namespace, which must be one of its own. */
export async function benchReach(): Promise<BenchResult[]> {
  // VMs' own users run the program from here, wherever this checkout lies.
  const programs = mkdtempSync(join(tmpdir(), "bench-reach-"));
  try {
    chmodSync(programs, 0o755);
    const program = join(programs, "vhost-device-vsock");
    copyFileSync(VSOCK_PROGRAM, program);
    const serial = await benchTransport({ name: "virtio-serial", env: {} });
    const env = { VOLANT_VSOCK: "on", VOLANT_VHOST_DEVICE_VSOCK: program };
    return [...serial, ...(await benchTransport({ name: "vsock", env }))];
  } finally {
    rmSync(programs, { recursive: true, force: true });
  }
}
