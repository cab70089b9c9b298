/**
 * What a reboot leaves of a host, and what comes back. Of the machine's parts that matter here, a reboot ends all processes and takes everything that
 * lives in the kernel: links, addresses, routes, rules, settings. Disks stay: the set-up's record, volantd's database, the unit's file. So the machine
 * is a network namespace here. "Rebooting" ends volantd and the hypervisors by SIGKILL and drops the namespace; the next one is empty but for a network
 * card with the same MAC, as a boot finds it, and runs what the systemd unit runs, in its order: `volar setup --service-file ""`, then volantd.
 *
 * The test's own namespace is the LAN at the other end of that card, with a DHCP server.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace, ip } from "../namespace.ts";
import { eventOf } from "../patience.ts";
import { type Finished, House, runProgram, testedPrograms } from "./house.ts";
import { end } from "./outside-world.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const CARD_MAC = "52:54:00:77:00:05";
const PATIENCE_MS = 120_000;

/** A house whose programs run in a network namespace that can be dropped. */
class Machine extends House {
  #holder: ChildProcess | undefined;

  get #enter(): string[] {
    return ["nsenter", "--net", "--target", String(this.#holder?.pid), "--"];
  }

  /** A kernel without anything but lo and a card that is wired to this test's LAN. */
  async boot(): Promise<void> {
    const holder = spawn("unshare", ["--net", "--", "sh", "-c", "ip link set lo up && echo ready && exec cat"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    await eventOf(holder.stdout, "data", "a network namespace");
    this.#holder = holder;
    ip(
      "link",
      "add",
      "lan0",
      "type",
      "veth",
      "peer",
      "name",
      "card0",
      "address",
      CARD_MAC,
      "netns",
      String(holder.pid),
    );
    ip("address", "add", "10.77.0.1/24", "dev", "lan0");
    ip("link", "set", "lan0", "up");
  }

  /** Takes everything that a reboot takes. */
  async lose(hypervisors: readonly number[]): Promise<void> {
    await this.stopVolantd("SIGKILL");
    for (const pid of hypervisors) process.kill(pid, "SIGKILL");
    const deadline = Date.now() + PATIENCE_MS;
    while (hypervisors.some((pid) => existsSync(`/proc/${pid}/ns/net`)) && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    if (this.#holder !== undefined) await end(this.#holder);
    this.#holder = undefined;
    // The kernel takes a namespace apart in its own time, and this end of the pair with it.
    const gone = async () => (await runProgram("ip", ["link", "show", "dev", "lan0"])).code !== 0;
    while (!(await gone()) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  override volar(...args: string[]): Promise<Finished> {
    return this.run(join(testedPrograms, "volar"), ...args);
  }

  /** Runs a program in the machine's namespace. */
  run(...args: string[]): Promise<Finished> {
    const [program = "", ...rest] = [...this.#enter, ...args];
    return runProgram(program, rest, this.environment);
  }

  async ip(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run("ip", ...args);
    assert.equal(code, 0, `ip ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  async start(): Promise<void> {
    await this.startVolantd(this.#enter);
  }

  /** A page, fetched by the machine. */
  async page(address: string): Promise<string> {
    const program = `fetch(process.argv[1], { signal: AbortSignal.timeout(30_000) }).then((page) => page.text()).then((text) => process.stdout.write(text))`;
    return (await this.run(process.execPath, "-e", program, `http://${address}/`)).stdout;
  }
}

let machine: Machine;
let dnsmasq: ChildProcess;

async function startDhcp(): Promise<void> {
  const args = [
    "--keep-in-foreground",
    "--log-facility=-",
    "--conf-file=/dev/null",
    "--user=root",
    "--pid-file=",
    "--port=0",
  ];
  const leases = `--dhcp-leasefile=${join(machine.directory, "leases")}`;
  const range = "--dhcp-range=10.77.0.50,10.77.0.99,255.255.255.0,1h";
  const child = spawn(
    "dnsmasq",
    [...args, "--interface=lan0", "--bind-dynamic", "--dhcp-authoritative", range, leases],
    {
      stdio: ["ignore", "ignore", "pipe"],
    },
  );
  await eventOf(child.stderr, "data", "the first words of dnsmasq");
  dnsmasq = child;
}

before(async () => {
  machine = new Machine({});
  await machine.boot();
  await startDhcp();
});

after(async () => {
  await machine?.close();
  await machine?.lose([]);
  if (dnsmasq !== undefined) await end(dnsmasq);
});

async function pageFromLan(address: string): Promise<string> {
  return await (await fetch(`http://${address}/`, { signal: AbortSignal.timeout(30_000) })).text();
}

/** Both VMs are reached: the one of the managed network by its host, the other by its LAN; and so is the host by the LAN. */
async function allIsWell(): Promise<readonly Vm[]> {
  const vms = await machine.vms();
  const [bridged, lan] = ["pool", "lan"].map((name) => vms.find((vm) => vm.name === name));
  assert.ok(bridged !== undefined && lan !== undefined);
  assert.equal(await machine.page(bridged.ip_address), "probe\n");
  assert.match(lan.ip_address, /^10\.77\.0\.[5-9]\d$/);
  assert.equal(await pageFromLan(lan.ip_address), "probe\n");
  assert.equal((await runProgram("busybox", ["ping", "-c", "1", "-W", "10", "10.77.0.5"])).code, 0);
  return [bridged, lan];
}

test("a host with a managed network and a LAN bridge runs a VM on each", async () => {
  await machine.ip("link", "set", "card0", "up");
  await machine.ip("address", "add", "10.77.0.5/24", "dev", "card0");
  await machine.ip("route", "add", "default", "via", "10.77.0.1");
  await machine.volarDone("setup", "--service-file", "", "--lan", "card0");
  await machine.start();
  const directory = join(machine.directory, "probe");
  mkdirSync(directory);
  await machine.volarDone("plugins", "install", buildProbePlugin(directory));
  await machine.volarDone("vms", "create", "pool", "--plugin", "probe", "--wait");
  const config = join(machine.directory, "lan.json");
  writeFileSync(config, JSON.stringify({ network: { mode: "dhcp", bridge: "lbr0" } }));
  await machine.volarDone("vms", "create", "lan", "--plugin", "probe", "--config", config, "--wait");
  await allIsWell();
});

test("after a reboot the network is as it was, and the VMs are reached again at the same addresses", async () => {
  const before = await allIsWell();
  const rules = async () =>
    (await machine.run("iptables-save")).stdout.split("\n").filter((line) => line.startsWith("-A"));
  const wholeRules = await rules();
  await machine.lose(before.flatMap(({ pid }) => pid ?? []));

  await machine.boot();
  assert.deepEqual(await rules(), []);
  const restored = await machine.volarDone("setup", "--service-file", "");
  assert.match(restored, /^done +bridge vbr0 /m);
  assert.match(restored, /^done +card0 on lbr0, with its routes$/m);
  assert.deepEqual(await rules(), wholeRules);
  assert.match(await machine.ip("-brief", "address", "show", "dev", "lbr0"), / 10\.77\.0\.5\/24/);
  assert.match(await machine.ip("route", "show", "default"), /^default via 10\.77\.0\.1 dev lbr0/);

  await machine.start();
  for (const { name, status } of await machine.vms()) {
    if (status !== "running") await machine.volarDone("vms", "start", name, "--wait");
  }
  const again = await allIsWell();
  assert.deepEqual(
    again.map(({ ip_address: address, mac_address: mac }) => [address, mac]),
    before.map(({ ip_address: address, mac_address: mac }) => [address, mac]),
  );
  const { stdout } = await machine.volar("doctor", "--json");
  const findings = JSON.parse(stdout) as { check: string; level: string; sentence: string }[];
  assert.deepEqual(
    findings.filter(({ check }) => check === "lan_bridges").map(({ level, sentence }) => `${level}: ${sentence}`),
    ["ok: the LAN bridge lbr0 is up, with card0"],
  );
});

test("a LAN bridge that is deleted under its VM comes back with its card; the VM keeps its address", async () => {
  const [, lan] = await allIsWell();
  await machine.ip("link", "delete", "lbr0");
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      assert.equal(await pageFromLan(String(lan?.ip_address)), "probe\n");
      break;
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  await allIsWell();
});

test("undo after the reboot gives the card its address and its route", async () => {
  await machine.volarDone("vms", "delete", "pool", "lan");
  await machine.stopVolantd();
  await machine.volarDone("setup", "--undo");
  assert.doesNotMatch(await machine.ip("link", "show"), /lbr0|vbr0/);
  assert.match(await machine.ip("-brief", "address", "show", "dev", "card0"), / 10\.77\.0\.5\/24/);
  assert.match(await machine.ip("route", "show", "default"), /^default via 10\.77\.0\.1 dev card0/);
  assert.equal((await runProgram("busybox", ["ping", "-c", "1", "-W", "10", "10.77.0.5"])).code, 0);
});
