import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { fetchInTime } from "../patience.ts";
import { type House, openHouse, runProgram } from "./house.ts";
import { OUTSIDE_ADDRESS, OUTSIDE_NAME, OUTSIDE_PAGE, type OutsideWorld, openOutsideWorld } from "./outside-world.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

let house: House;
let world: OutsideWorld;

before(async () => {
  house = await openHouse({ env: { VOLANT_DNS: OUTSIDE_ADDRESS } });
  world = await openOutsideWorld(house.directory);
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
});

after(async () => {
  await house?.close();
  await world?.close();
});

/** A page of the probe workload in the guest at `address`. */
async function ask(address: string, page: string, argument = ""): Promise<string> {
  const response = await fetchInTime(`http://${address}/cgi-bin/${page}?${argument}`);
  return response.text();
}

/** Links of ours that there are now: none once every VM is gone. */
function taps(): string[] {
  return ipJson("link", "show").flatMap((link) =>
    String(link["ifname"]).startsWith("vttap-") ? [String(link["ifname"])] : [],
  );
}

test("the first VM has the pool's first address and answers the host's ping and HTTP", async () => {
  const vm = await house.volarJson<Vm>("vms", "create", "first", "--plugin", "probe", "--wait");
  assert.equal(vm.status, "running");
  assert.equal(vm.ip_address, "192.168.127.2");
  assert.match(vm.mac_address, /^02(:[0-9a-f]{2}){5}$/);
  assert.equal(vm.agent.attached, true);
  assert.equal(vm.agent.health, "healthy");
  assert.equal((await runProgram("busybox", ["ping", "-c", "1", "-W", "3", vm.ip_address])).code, 0);
  assert.equal(await (await fetchInTime(`http://${vm.ip_address}/`)).text(), "probe\n");
});

test("a running VM's tap is a persistent vnet_hdr tap on the bridge, owned by its hypervisor's user, with our mark", async () => {
  const { installation } = await house.api<{ installation: string }>("/api/v1/system/info");
  const vm = (await house.vms())[0];
  assert.ok(vm !== undefined);
  const [link] = ipJson("link", "show", "dev", "vttap-first");
  assert.ok(link !== undefined);
  assert.equal(link["master"], "vbr0");
  assert.equal(link["ifalias"], `volant:${installation}:${vm.id}`);
  const info = link["linkinfo"] as { info_kind: string; info_data: Record<string, unknown> };
  assert.equal(info.info_kind, "tun");
  assert.equal(info.info_data["type"], "tap");
  assert.equal(info.info_data["vnet_hdr"], true);
  assert.equal(info.info_data["persist"], true);
  assert.notEqual(info.info_data["user"] ?? "root", "root");
  assert.equal(vm.network.tap, "vttap-first");
  assert.equal(vm.network.bridge, "vbr0");
});

test("the guest has its address, hostname and name server, and no interface but lo and eth0", async () => {
  const links = await ask("192.168.127.2", "links");
  assert.match(links, /eth0 +inet 192\.168\.127\.2\/24/);
  assert.match(await ask("192.168.127.2", "read", "/etc/hostname"), /^first$/m);
  assert.match(
    await ask("192.168.127.2", "read", "/etc/resolv.conf"),
    new RegExp(`^nameserver ${OUTSIDE_ADDRESS}$`, "m"),
  );
  const interfaces = new Set([...links.matchAll(/^\d+: (\S+)/gm)].map((match) => match[1]));
  assert.deepEqual([...interfaces].sort(), ["eth0", "lo"]);
});

test("the guest reaches the host", async () => {
  assert.match(await ask("192.168.127.2", "ping", "192.168.127.1"), /exit code 0/);
});

test("volar top shows a busy guest's processor time, memory and traffic, as its hypervisor and its tap have them", async () => {
  interface Rate {
    readonly name: string;
    readonly pid: number;
    readonly cpu_percent: number;
    readonly memory_bytes: number;
    readonly rx_bytes_per_second: number;
    readonly tx_bytes_per_second: number;
  }
  let isDone = false;
  const looking = house.volarJson<Rate[]>("top", "--once").finally(() => (isDone = true));
  while (!isDone) await ask("192.168.127.2", "links");
  const [rate, ...others] = await looking;
  assert.ok(rate !== undefined && others.length === 0);
  assert.deepEqual([rate.name, rate.pid], ["first", (await house.vms())[0]?.pid]);
  assert.ok(rate.cpu_percent > 0, `${rate.cpu_percent} %`);
  assert.ok(rate.memory_bytes > 32 * 1024 * 1024, `${rate.memory_bytes} bytes`);
  assert.ok(rate.rx_bytes_per_second > 0 && rate.tx_bytes_per_second > 0, JSON.stringify(rate));
});

test("through masquerade the guest resolves a name and fetches a page in another namespace, which has no route back", async () => {
  assert.match(await ask("192.168.127.2", "resolve", OUTSIDE_NAME), new RegExp(`Address: ${OUTSIDE_ADDRESS}`));
  const answer = await ask("192.168.127.2", "fetch", OUTSIDE_NAME);
  assert.match(answer, new RegExp(`${OUTSIDE_PAGE}\nexit code 0`));
});

test("the guest runs a kernel of its own", async () => {
  const host = (await runProgram("uname", ["-r"])).stdout.trim();
  const guest = (await ask("192.168.127.2", "read", "/proc/sys/kernel/osrelease")).split("\n")[0];
  assert.notEqual(guest, host);
});

test("volantd may be stopped and killed: the VM goes on, is adopted, and is still the same process", async () => {
  const [before] = await house.hypervisors();
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    await house.stopVolantd(signal);
    assert.equal(await (await fetchInTime("http://192.168.127.2/")).text(), "probe\n");
    await house.startVolantd();
    const vm = await house.volarJson<Vm>("vms", "get", "first");
    assert.equal(vm.pid, before);
  }
  await house.volarDone("vms", "wait", "first");
  assert.deepEqual(await house.hypervisors(), [before]);
});

test("a stopped VM keeps its address and loses tap and process; started again it answers", async () => {
  await house.volarDone("vms", "stop", "first");
  assert.deepEqual(taps(), []);
  assert.deepEqual(await house.hypervisors(), []);
  await house.volarDone("vms", "start", "first", "--wait");
  assert.equal(await (await fetchInTime("http://192.168.127.2/")).text(), "probe\n");
});

test("a VM whose hypervisor is killed is seen as crashed, with a reason, and leaves no tap", async () => {
  const [pid] = await house.hypervisors();
  assert.ok(pid !== undefined);
  const crashed = house.volar("vms", "wait", "first", "--status", "crashed");
  process.kill(pid, "SIGKILL");
  assert.equal((await crashed).code, 0);
  const vm = await house.volarJson<Vm>("vms", "get", "first");
  assert.equal(vm.status, "crashed");
  assert.ok(vm.reason !== undefined && vm.reason.length > 0);
  await house.volarDone("vms", "delete", "first");
  assert.deepEqual(taps(), []);
});

test("two VMs made at once, and ten, differ in address, MAC and tap; deleting them leaves nothing", async () => {
  for (const count of [2, 10]) {
    const names = Array.from({ length: count }, (_, index) => `many-${index}`);
    const made = await Promise.all(
      names.map((name) => house.volarJson<Vm>("vms", "create", name, "--plugin", "probe", "--wait=300")),
    );
    for (const key of ["ip_address", "mac_address", "vsock_cid", "pid"] as const) {
      assert.equal(new Set(made.map((vm) => vm[key])).size, count, key);
    }
    assert.equal(new Set(taps()).size, count);
    const pages = await Promise.all(made.map(async (vm) => (await fetchInTime(`http://${vm.ip_address}/`)).text()));
    assert.deepEqual(new Set(pages), new Set(["probe\n"]));
    await house.volarDone("vms", "delete", ...names);
    assert.deepEqual(taps(), []);
    assert.deepEqual(await house.hypervisors(), []);
    assert.doesNotMatch(ip("neigh", "show", "dev", "vbr0"), /PERMANENT/);
    assert.deepEqual(await house.vms(), []);
  }
});
