/** A host whose network a person manages: volantd takes the taps that it finds, and touches nothing. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { fetchInTime } from "../patience.ts";
import { House, runProgram } from "./house.ts";
import { type Lan, LAN_BRIDGE, openLan } from "./lan.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const GATEWAY = "192.168.127.1/24";
let house: House;
let lan: Lan | undefined;

before(async () => {
  house = new House({ VOLANT_NETWORK: "noop" });
  await house.startVolantd();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
});

after(async () => {
  await house?.close();
  await lan?.close();
});

/** What a person does, in the words of docs/networking.md. */
function makeTap(name: string): void {
  ip("tuntap", "add", "dev", name, "mode", "tap");
  ip("link", "set", name, "up");
}

async function page(vm: Vm): Promise<string> {
  return (await fetchInTime(`http://${vm.ip_address}/`)).text();
}

async function guestPing(vm: string, address: string): Promise<number | null> {
  return (await house.volar("vms", "exec", vm, "--", "/bin/busybox", "ping", "-c", "1", "-W", "5", address)).code;
}

test("volantd says with one warning at its start that it manages no network", () => {
  const lines = house.log.split("\n").filter((line) => line !== "");
  const warnings = lines.map((line) => JSON.parse(line) as { level: string; message: string });
  assert.deepEqual(
    warnings.filter(({ level }) => level !== "info").map(({ level, message }) => [level, message]),
    [["warn", "volantd manages no network here: taps must be made by hand"]],
  );
});

test("without its tap a VM is refused, and the sentence names the tap and how to make it; nothing is stored", async () => {
  const refused = await house.volar("vms", "create", "Web-1", "--plugin", "probe");
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /no tap volar-tap-Web1/);
  assert.match(refused.stderr, /ip tuntap add dev volar-tap-Web1 mode tap/);
  assert.deepEqual(await house.vms(), []);
});

test("with a tap made by hand a real VM boots on it and is reached at its address, which the pool gave", async () => {
  makeTap("volar-tap-Web1");
  ip("address", "add", GATEWAY, "dev", "volar-tap-Web1");
  const vm = await house.volarJson<Vm>("vms", "create", "Web-1", "--plugin", "probe", "--wait");
  assert.deepEqual(
    [vm.status, vm.ip_address, vm.network.tap, vm.network.bridge],
    ["running", "192.168.127.2", "volar-tap-Web1", undefined],
  );
  assert.equal(await page(vm), "probe\n");
  assert.equal(await guestPing("Web-1", "192.168.127.1"), 0);
});

test("volantd touches nothing: no mark on the tap, no neighbour, no rule, no bridge; and a stop leaves the tap", async () => {
  const taps = () => ipJson("link", "show", "type", "tun").map(({ ifname }) => ifname);
  assert.deepEqual(taps(), ["volar-tap-Web1"]);
  assert.equal(ipJson("link", "show", "dev", "volar-tap-Web1")[0]?.["ifalias"], undefined);
  assert.doesNotMatch(ip("neigh", "show"), /PERMANENT/);
  assert.deepEqual(ipJson("link", "show", "type", "bridge"), []);
  assert.equal((await runProgram("nft", ["list", "ruleset"])).stdout, "");
  await house.volarDone("vms", "stop", "Web-1");
  assert.deepEqual(taps(), ["volar-tap-Web1"]);
  await house.volarDone("vms", "start", "Web-1", "--wait");
  assert.equal(await page(await house.volarJson<Vm>("vms", "get", "Web-1")), "probe\n");
});

test("a VM's name that makes too long a tap's name is refused; network.tap names another, and both VMs share a bridge made by hand", async () => {
  const refused = await house.volar("vms", "create", "frontend", "--plugin", "probe");
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /volar-tap-frontend is longer than the 15 bytes/);
  assert.match(refused.stderr, /network\.tap/);

  ip("link", "add", "br-hand", "type", "bridge");
  ip("link", "set", "br-hand", "up");
  makeTap("hand0");
  ip("address", "del", GATEWAY, "dev", "volar-tap-Web1");
  ip("address", "add", GATEWAY, "dev", "br-hand");
  for (const tap of ["volar-tap-Web1", "hand0"]) ip("link", "set", tap, "master", "br-hand");
  const config = join(house.directory, "tap.json");
  writeFileSync(config, JSON.stringify({ network: { tap: "hand0" } }));
  const args = ["vms", "create", "frontend", "--plugin", "probe", "--config", config, "--wait"];
  const vm = await house.volarJson<Vm>(...args);
  assert.deepEqual([vm.network.tap, vm.ip_address], ["hand0", "192.168.127.3"]);
  assert.equal(await page(vm), "probe\n");
  assert.equal(await guestPing("frontend", "192.168.127.2"), 0);
});

test("a tap that is gone at a start is named as the reason, and a new one of that name serves", async () => {
  await house.volarDone("vms", "stop", "frontend");
  ip("link", "del", "hand0");
  await house.volarDone("vms", "start", "frontend");
  await house.volarDone("vms", "wait", "frontend", "--status", "crashed");
  const { reason } = await house.volarJson<Vm>("vms", "get", "frontend");
  assert.match(reason ?? "", /the tap hand0 of VM frontend can't be opened: .*no persistent tap/);
  makeTap("hand0");
  ip("link", "set", "hand0", "master", "br-hand");
  await house.volarDone("vms", "start", "frontend", "--wait");
  await house.volarDone("vms", "delete", "frontend");
  assert.equal(ipJson("link", "show", "dev", "hand0").length, 1, "deleting the VM leaves the tap");
});

test("modes dhcp and vsock work as well: one on a tap of a LAN's bridge, one without a tap", async () => {
  lan = await openLan();
  await lan.startDnsmasq(join(house.directory, "dnsmasq.leases"));
  makeTap("volar-tap-Lan");
  ip("link", "set", "volar-tap-Lan", "master", LAN_BRIDGE);
  const [leased, bare] = await Promise.all([
    house.volarJson<Vm>("vms", "create", "Lan", "--plugin", "probe", "--network", "dhcp", "--wait"),
    house.volarJson<Vm>("vms", "create", "no-ethernet", "--plugin", "probe", "--network", "vsock", "--wait"),
  ]);
  assert.match(leased.ip_address, /^10\.77\.0\./);
  assert.equal(leased.policy, undefined, "nothing is promised that nothing holds");
  assert.equal(await lan.fetch(leased.ip_address), "probe\n");
  assert.equal(bare.network.tap, undefined);
  assert.equal(await (await fetchInTime("http://127.0.0.1:7777/api/v1/vms/no-ethernet/agent/")).text(), "probe\n");
});
