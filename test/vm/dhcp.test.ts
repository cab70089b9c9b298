import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm, VmEvent } from "@volant/contract";
import { VolantClient } from "@volant/sdk";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { fetchInTime } from "../patience.ts";
import { type House, openHouse } from "./house.ts";
import { type Lan, LAN_BRIDGE, LAN_SERVER, type LanProgram, openLan } from "./lan.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const PATIENCE_MS = 120_000;

let house: House;
let lan: Lan;
let client: VolantClient;
let dnsmasq: LanProgram;
let kea: LanProgram;
const events: VmEvent[] = [];
const news = new EventEmitter().setMaxListeners(0);
const ended = new AbortController();

before(async () => {
  lan = await openLan();
  house = await openHouse({ setup: ["--lan-bridge", LAN_BRIDGE] });
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
  client = new VolantClient({ baseUrl: "http://127.0.0.1:7777" });
  void collectEvents();
});

after(async () => {
  ended.abort();
  await house?.close();
  await lan?.close();
});

async function collectEvents(): Promise<void> {
  try {
    for await (const event of client.events({ signal: ended.signal })) {
      if (event.type === "VM_LOG") continue;
      events.push(event);
      news.emit("event");
    }
  } catch (error) {
    if (!ended.signal.aborted) throw error;
  }
}

/** Waits until the VM is as `done` wants it: a look now, then one after each event. */
async function until(name: string, done: (vm: Vm) => boolean, what: string): Promise<Vm> {
  const deadline = AbortSignal.timeout(PATIENCE_MS);
  for (;;) {
    const next = once(news, "event", { signal: deadline });
    next.catch(() => {});
    const vm = await client.vms.get(name);
    if (done(vm)) return vm;
    await next.catch(() => assert.fail(`${what}: ${JSON.stringify(vm)}`));
  }
}

/** What the guest answers to one of the probe's pages, asked from the LAN. */
function ask(vm: Vm, page: string): Promise<string> {
  return lan.fetch(vm.ip_address, `cgi-bin/${page}`);
}

test("without a server the VM is up and waits for a lease: it says so, and waiting for it ends with that word", async () => {
  const network = JSON.stringify({ network: { mode: "dhcp", bridge: LAN_BRIDGE } });
  const config = join(house.directory, "lan.json");
  writeFileSync(config, network);
  const made = await house.volarJson<Vm>("vms", "create", "Lan_1", "--plugin", "probe", "--config", config);
  assert.deepEqual([made.ip_address, made.network.mode, made.network.bridge], ["", "dhcp", LAN_BRIDGE]);
  const vm = await until("Lan_1", ({ reason }) => reason === "waiting_for_lease", "it does not wait for a lease");
  assert.deepEqual([vm.status, vm.network.addresses, vm.agent.attached], ["starting", [], true]);
  const waited = await house.volar("vms", "wait", "Lan_1", "--timeout", "1");
  assert.equal(waited.code, 1);
  assert.match(waited.stderr, /waiting_for_lease/);
});

test("dnsmasq's lease is the guest's address, route and name server; the VM runs, and shows what it was given", async () => {
  const leases = join(house.directory, "dnsmasq.leases");
  dnsmasq = await lan.startDnsmasq(leases);
  const vm = await until("Lan_1", ({ status }) => status === "running", "it does not run");
  assert.match(vm.ip_address, /^10\.77\.0\.(5|6|7|8|9)\d$/);
  assert.deepEqual(vm.network.addresses, [`${vm.ip_address}/24`]);
  const { lease } = vm.network;
  assert.deepEqual(
    [lease?.state, lease?.server, lease?.gateway, lease?.nameservers, lease?.domain],
    ["bound", LAN_SERVER, LAN_SERVER, ["10.77.0.53"], "lan.example"],
  );
  const span = Date.parse(lease?.expires_at ?? "") - Date.parse(lease?.obtained_at ?? "");
  assert.ok(span > 110_000 && span <= 120_000, String(span));
  assert.match(readFileSync(leases, "utf8"), new RegExp(`${vm.mac_address} ${vm.ip_address} lan1 `), "with its name");
  assert.match(await house.volarDone("vms", "list"), new RegExp(`Lan_1 .*${vm.ip_address.replaceAll(".", "\\.")}`));
  assert.match(await house.volarDone("vms", "get", "Lan_1"), /bound from 10\.77\.0\.1 until/);
  const [running] = events.filter(({ type }) => type === "VM_RUNNING");
  assert.equal(running?.ip_address, vm.ip_address);
});

test("a page is fetched at the leased address from the LAN, and the guest has just what it was given", async () => {
  const vm = await client.vms.get("Lan_1");
  assert.equal(await lan.fetch(vm.ip_address), "probe\n");
  assert.match(await ask(vm, "links"), new RegExp(`eth0 +inet ${vm.ip_address}/24`));
  assert.match(await ask(vm, "ping?10.77.0.1"), /exit code 0/);
  assert.match(await ask(vm, "read?/etc/resolv.conf"), /^search lan\.example\nnameserver 10\.77\.0\.53$/m);
  assert.match(await ask(vm, "read?/etc/hosts"), new RegExp(`^${vm.ip_address} lan1 `, "m"));
  assert.doesNotMatch(await ask(vm, "read?/proc/cmdline"), /\bip=/);
  // Destination 0.0.0.0 by gateway 10.77.0.1, in the kernel's byte order.
  assert.match(await ask(vm, "read?/proc/net/route"), /^eth0\t00000000\t01004D0A\t/m);
});

test("a bridged VM runs beside it on the managed bridge; neither the host's pool nor its neighbours know the other", async () => {
  const bridged = await house.volarJson<Vm>("vms", "create", "pool", "--plugin", "probe", "--wait");
  assert.deepEqual([bridged.ip_address, bridged.network.bridge], ["192.168.127.2", "vbr0"]);
  assert.equal(await (await fetchInTime(`http://${bridged.ip_address}/`)).text(), "probe\n");
  const master = (name: string | undefined) => ipJson("link", "show", "dev", String(name))[0]?.["master"];
  assert.equal(master(bridged.network.tap), "vbr0");
  const vm = await client.vms.get("Lan_1");
  assert.equal(master(vm.network.tap), LAN_BRIDGE);
  assert.doesNotMatch(ip("neigh", "show", "dev", LAN_BRIDGE), /PERMANENT/);
  assert.equal(await lan.fetch(vm.ip_address), "probe\n");
  await house.volarDone("vms", "delete", "pool");
});

test("volantd may be killed: the lease goes on, and the next volantd shows it again", async () => {
  const { ip_address: address } = await client.vms.get("Lan_1");
  await house.stopVolantd("SIGKILL");
  assert.equal(await lan.fetch(address), "probe\n");
  await house.startVolantd();
  const vm = await until("Lan_1", (now) => now.ip_address === address, "the lease is not shown");
  assert.equal(vm.status, "running");
});

test("Kea's lease of ten seconds is renewed and renewed again, and the address stays", async () => {
  await dnsmasq.stop();
  kea = await lan.startKea(join(house.directory, "kea"));
  await house.volarDone("vms", "restart", "Lan_1", "--wait");
  const first = await client.vms.get("Lan_1");
  assert.match(first.ip_address, /^10\.77\.0\.1[0-4]\d$/);
  // A renewal is no event: what is waited for is the server's word.
  const renewals = () => [...kea.output().matchAll(/DHCP4_LEASE_ALLOC/g)].length;
  const deadline = Date.now() + PATIENCE_MS;
  while (renewals() < 4 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 250));
  assert.ok(renewals() >= 4, kea.output());
  const last = await client.vms.get("Lan_1");
  assert.equal(last.ip_address, first.ip_address);
  assert.ok((last.network.lease?.obtained_at ?? "") > (first.network.lease?.obtained_at ?? ""));
  assert.equal(await lan.fetch(last.ip_address), "probe\n");
});

test("a lease whose server has moved is rebound by broadcast: the address stays, and the new server is shown", async () => {
  const { ip_address: address } = await client.vms.get("Lan_1");
  await kea.stop();
  lan.ip("address", "del", `${LAN_SERVER}/24`, "dev", "lan0");
  lan.ip("address", "add", "10.77.0.2/24", "dev", "lan0");
  kea = await lan.startKea(join(house.directory, "kea"));
  const moved = (vm: Vm) => vm.network.lease?.server === "10.77.0.2";
  const vm = await until("Lan_1", moved, "it is not rebound");
  assert.deepEqual([vm.ip_address, vm.status, vm.reason], [address, "running", undefined]);
  assert.equal(await lan.fetch(address), "probe\n");
});

test("a lease that nobody renews ends: the guest gives its address up and says so, and gets one when a server is back", async () => {
  const { ip_address: address } = await client.vms.get("Lan_1");
  await kea.stop();
  const lost = await until("Lan_1", ({ reason }) => reason === "waiting_for_lease", "the loss is not said");
  assert.deepEqual([lost.status, lost.ip_address, lost.network.addresses], ["running", "", []]);
  await assert.rejects(lan.fetch(address, "", 5000));
  kea = await lan.startKea(join(house.directory, "kea"));
  const back = await until("Lan_1", (vm) => vm.ip_address !== "", "there is no new lease");
  assert.equal(await lan.fetch(back.ip_address), "probe\n");
  const told = events.filter(({ type, name }) => type === "VM_UPDATED" && name === "Lan_1");
  assert.ok(told.some(({ message }) => message === "its lease is gone"));
});

test("a bridge that is no LAN's by the operator's word, and settings that are a server's to make, are refused in words", async () => {
  const create = (network: object) => client.vms.create({ name: "no", plugin: "probe", config: { network } });
  const foreign = create({ mode: "dhcp", bridge: "br-none" });
  await assert.rejects(foreign, { code: "invalid", hint: /run: volar setup --lan-bridge br-none / });
  ip("link", "add", "br-other", "type", "bridge");
  await assert.rejects(create({ mode: "dhcp", bridge: "br-other" }), {
    code: "invalid",
    message: /may not join the bridge br-other/,
  });
  ip("link", "delete", "br-other");
  await assert.rejects(create({ mode: "dhcp", subnet: "192.168.127.0/24" }), { code: "invalid", message: /subnet/ });
  assert.deepEqual(
    (await house.vms()).map(({ name }) => name),
    ["Lan_1"],
  );
});

test("a deleted VM takes its tap from the LAN's bridge, and leaves the bridge as it was", async () => {
  await house.volarDone("vms", "delete", "Lan_1");
  const ports = ipJson("link", "show", "master", LAN_BRIDGE).map((link) => link["ifname"]);
  assert.deepEqual(ports, ["lan-port"]);
  assert.match(ip("link", "show", "dev", LAN_BRIDGE), /[<,]UP[,>]/);
});
