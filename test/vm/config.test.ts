/** What is changed of a VM after its creation, and addresses that users choose, with real guests. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm, VmConfigState, VmConfigVersion } from "@volant/contract";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { fetchInTime } from "../patience.ts";
import { type Finished, type House, openHouse } from "./house.ts";
import { type Lan, LAN_BRIDGE, openLan } from "./lan.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const MAC = "52:54:00:12:34:56";
let house: House;
let lan: Lan;

before(async () => {
  house = await openHouse({ env: { VOLANT_LAN_BRIDGES: LAN_BRIDGE } });
  lan = await openLan();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
});

after(async () => {
  await house?.close();
  await lan?.close();
});

const get = (name: string): Promise<Vm> => house.volarJson<Vm>("vms", "get", name);
const page = async (address: string): Promise<string> => (await fetchInTime(`http://${address}/`)).text();
const taps = (): unknown[] =>
  ipJson("link", "show")
    .filter((link) => String(link["ifname"]).startsWith("vttap-"))
    .map((link) => [link["ifname"], link["master"]]);
const permanent = (): string => ip("neigh", "show", "dev", "vbr0", "nud", "permanent");

/** What a program of busybox in the guest prints. */
function inGuest(name: string, ...command: string[]): Promise<string> {
  return house.volarDone("vms", "exec", name, "--", "/bin/busybox", ...command);
}

let made: Vm;

test("a mode in upper case is that mode; changed, it waits: the running VM keeps its tap, its lease and its page", async () => {
  made = await house.volarJson<Vm>("vms", "create", "shift", "--plugin", "probe", "--network", " BRIDGED ", "--wait");
  assert.deepEqual([made.network.mode, made.network.tap, made.status], ["bridged", "vttap-shift", "running"]);
  const set = await house.volarJson<VmConfigState>("vms", "config", "set", "shift", "--network", "vsock");
  assert.deepEqual([set.version, set.pending, set.config.network], [2, true, { mode: "vsock" }]);
  const vm = await get("shift");
  assert.deepEqual([vm.network.mode, vm.ip_address, vm.pending_config], ["bridged", made.ip_address, true]);
  assert.deepEqual(taps(), [["vttap-shift", "vbr0"]]);
  assert.equal(await page(made.ip_address), "probe\n");
});

test("from its next start on it is in mode vsock: no tap, no lease, no neighbour entry, and nothing but lo in the guest", async () => {
  await house.volarDone("vms", "restart", "shift", "--wait");
  const vm = await get("shift");
  assert.deepEqual([vm.network, vm.ip_address, vm.pending_config], [{ mode: "vsock", addresses: [] }, "", undefined]);
  assert.deepEqual([taps(), permanent()], [[], ""]);
  const links = (await inGuest("shift", "ip", "-o", "link", "show")).trim().split("\n");
  assert.deepEqual([links.length, links[0]?.startsWith("1: lo:")], [1, true], links.join("\n"));
  assert.doesNotMatch(await inGuest("shift", "cat", "/proc/cmdline"), /\bip=/);
});

test("then in mode dhcp on the LAN's bridge: the tap is back by its name, and the address is the server's", async () => {
  await lan.startDnsmasq(join(house.directory, "dnsmasq.leases"));
  const patch = join(house.directory, "patch.json");
  writeFileSync(patch, JSON.stringify({ network: { mode: "dhcp", bridge: LAN_BRIDGE }, env: null }));
  await house.volarDone("vms", "config", "set", "shift", "--config", patch);
  await house.volarDone("vms", "restart", "shift", "--wait");
  const vm = await get("shift");
  assert.match(vm.ip_address, /^10\.77\.0\.\d+$/);
  assert.deepEqual([taps(), permanent()], [[["vttap-shift", LAN_BRIDGE]], ""]);
  assert.equal(await lan.fetch(vm.ip_address), "probe\n");
});

test("then bridged again, after a stop, with more memory: a lease of the pool, the same tap and MAC, and all versions are remembered", async () => {
  await house.volarDone("vms", "config", "set", "shift", "--network", "bridged", "--memory", "160");
  await house.volarDone("vms", "stop", "shift");
  assert.deepEqual(taps(), []);
  await house.volarDone("vms", "start", "shift", "--wait");
  const vm = await get("shift");
  assert.deepEqual([vm.network.mode, vm.mac_address, vm.memory_mb], ["bridged", made.mac_address, 160]);
  assert.match(vm.ip_address, /^192\.168\.127\.\d+$/);
  assert.deepEqual(taps(), [["vttap-shift", "vbr0"]]);
  assert.match(permanent(), new RegExp(`^${vm.ip_address} lladdr ${vm.mac_address} `));
  assert.equal(await page(vm.ip_address), "probe\n");
  const total = Number(/MemTotal: +(\d+) kB/.exec(await inGuest("shift", "cat", "/proc/meminfo"))?.[1]);
  assert.ok(total > 110 * 1024 && total < 160 * 1024, String(total));
  const history = await house.volarJson<VmConfigVersion[]>("vms", "config", "history", "shift");
  assert.deepEqual(
    history.map(({ version, config }) => [version, config.network?.mode]),
    [
      [4, "bridged"],
      [3, "dhcp"],
      [2, "vsock"],
      [1, " BRIDGED "],
    ],
  );
});

test("a chosen address and MAC are the guest's, and the address is kept for the VM through a mode without one", async () => {
  const create = ["vms", "create", "kept", "--plugin", "probe", "--ip", "192.168.127.50", "--mac", MAC.toUpperCase()];
  const vm = await house.volarJson<Vm>(...create, "--wait");
  assert.deepEqual([vm.ip_address, vm.mac_address], ["192.168.127.50", MAC]);
  assert.equal(await page("192.168.127.50"), "probe\n");
  assert.match(permanent(), new RegExp(`192\\.168\\.127\\.50 lladdr ${MAC} `));
  assert.equal((await inGuest("kept", "cat", "/sys/class/net/eth0/address")).trim(), MAC);
  await house.volarDone("vms", "config", "set", "kept", "--network", "vsock");
  await house.volarDone("vms", "restart", "kept", "--wait");
  const taken = await house.volar("vms", "create", "thief", "--plugin", "probe", "--ip", "192.168.127.50");
  assert.match(taken.stderr, /192\.168\.127\.50 belongs to VM "kept"/);
  assert.equal(taken.code, 1);
  await house.volarDone("vms", "config", "set", "kept", "--network", "bridged");
  await house.volarDone("vms", "restart", "kept", "--wait");
  assert.equal((await get("kept")).ip_address, "192.168.127.50");
  await house.volarDone("vms", "delete", "kept");
  assert.doesNotMatch(permanent(), new RegExp(MAC));
});

/** One sentence, perhaps a hint, this exit code, and no VM of it. */
async function assertRefused(result: Finished, code: number, sentence: RegExp): Promise<void> {
  assert.match(result.stderr, sentence);
  assert.deepEqual([result.code, result.stdout], [code, ""], result.stderr);
  assert.ok(result.stderr.trim().split("\n").length <= 2, result.stderr);
  assert.deepEqual(
    (await house.vms()).map(({ name }) => name),
    ["shift"],
  );
}

const mistakes: Record<string, [flags: readonly string[], code: number, sentence: RegExp]> = {
  "an unknown mode": [["--network", "macvtap"], 2, /network mode "macvtap" does not exist: use bridged, vsock or dhcp/],
  "an address that is none": [["--ip", "192.168.127.999"], 2, /"192\.168\.127\.999" is not an IPv4 address/],
  "an address outside the subnet": [["--ip", "10.1.2.3"], 2, /10\.1\.2\.3 is outside 192\.168\.127\.0\/24/],
  "the network address": [["--ip", "192.168.127.0"], 2, /network address/],
  "the broadcast address": [["--ip", "192.168.127.255"], 2, /broadcast address/],
  "the host's address": [["--ip", "192.168.127.1"], 2, /this host's own on the bridge/],
  "an address in mode vsock": [["--ip", "192.168.127.9", "--network", "vsock"], 2, /vsock, which has no Ethernet/],
  "an address in mode dhcp": [["--ip", "192.168.127.9", "--network", "dhcp"], 2, /DHCP server's to say/],
  "a MAC that is none": [["--mac", "52:54:00"], 2, /six pairs of hexadecimal digits/],
  "a MAC of zeroes": [["--mac", "00:00:00:00:00:00"], 2, /all zeroes/],
  "a multicast MAC": [["--mac", "01:00:5e:00:00:01"], 2, /multicast/],
};
for (const [what, [flags, code, sentence]] of Object.entries(mistakes)) {
  test(`${what} is refused in one sentence, and no VM is made`, async () => {
    await assertRefused(await house.volar("vms", "create", "no", "--plugin", "probe", ...flags), code, sentence);
  });
}

test("an address and a MAC that are taken, and the bridge's own MAC, are refused by the name of who has them", async () => {
  const { ip_address: address, mac_address: mac } = await get("shift");
  const bridge = String(ipJson("link", "show", "dev", "vbr0")[0]?.["address"]);
  const create = (...flags: string[]) => house.volar("vms", "create", "no", "--plugin", "probe", ...flags);
  await assertRefused(await create("--ip", address), 1, new RegExp(`${address} belongs to VM "shift"`));
  await assertRefused(await create("--mac", bridge), 1, new RegExp(`${bridge} is that of vbr0`));
  // The MACs that Volant makes itself are no one's to choose, those that are in use among them.
  await assertRefused(await create("--mac", mac), 2, /gives to VMs by itself/);
  const changed = await house.volar("vms", "config", "set", "shift", "--ip", "10.1.2.3");
  await assertRefused(changed, 2, /outside 192\.168\.127\.0\/24/);
});

test("another subnet: the running VM stays reachable at its address, and has one of the new subnet from its next start on", async () => {
  const { ip_address: old, network } = await get("shift");
  const [pid] = await house.hypervisors();
  await house.stopVolantd();
  ip("address", "add", "10.88.0.1/24", "dev", "vbr0");
  const { environment } = house;
  environment["VOLANT_SUBNET"] = "10.88.0.0/24";
  environment["VOLANT_HOST_IP"] = "10.88.0.1";
  await house.startVolantd();
  await house.volarDone("vms", "wait", "shift");
  const live = await get("shift");
  assert.deepEqual([live.ip_address, live.status], [old, "running"]);
  assert.deepEqual(await house.hypervisors(), [pid]);
  assert.equal(await page(old), "probe\n");
  await house.volarDone("vms", "restart", "shift", "--wait");
  const moved = await get("shift");
  assert.deepEqual([moved.network.addresses, moved.network.tap], [["10.88.0.2/24"], network.tap]);
  assert.equal(await page("10.88.0.2"), "probe\n");
  assert.doesNotMatch(permanent(), new RegExp(old.replaceAll(".", "\\.")));
  await house.volarDone("vms", "delete", "shift");
  ip("address", "del", "10.88.0.1/24", "dev", "vbr0");
});
