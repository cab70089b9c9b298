/**
 * The three network modes side by side, each promise looked at from the host, from the LAN and from inside the guest. One plugin, whose manifest says `DHCP` on
 * the LAN's bridge; two of its three VMs override that.
 */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import type { Vm } from "@volant/contract";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { fetchInTime } from "../patience.ts";
import { type House, openHouse } from "./house.ts";
import { type Lan, LAN_BRIDGE, LAN_SERVER, openLan } from "./lan.ts";
import { connectLan } from "./lan-uplink.ts";
import { OUTSIDE_ADDRESS, OUTSIDE_PAGE, type OutsideWorld, openOutsideWorld } from "./outside-world.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

const NAMES = { bridged: "Bridged_1", dhcp: "Lan-1", vsock: "Vsock--1" } as const;
type Mode = keyof typeof NAMES;
const MODES = Object.keys(NAMES) as Mode[];

let house: House;
let lan: Lan;
let world: OutsideWorld;
let vms: Readonly<Record<Mode, Vm>>;

before(async () => {
  house = await openHouse({ env: { VOLANT_DNS: OUTSIDE_ADDRESS, VOLANT_LAN_BRIDGES: LAN_BRIDGE } });
  world = await openOutsideWorld(house.directory);
  lan = await openLan();
  connectLan(lan, world);
  await lan.startDnsmasq(join(house.directory, "dnsmasq.leases"));
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  const manifest = buildProbePlugin(directory, { network: { mode: "DHCP", bridge: LAN_BRIDGE } });
  await house.volarDone("plugins", "install", manifest);
});

after(async () => {
  await house?.close();
  await lan?.close();
  await world?.close();
});

/** Runs a program in the guest of this mode's VM; gives both of its outputs and its exit code. */
async function inside(
  mode: Mode,
  ...command: string[]
): Promise<{ readonly code: number | null; readonly text: string }> {
  const { code, stdout, stderr } = await house.volar("vms", "exec", NAMES[mode], "--", ...command);
  return { code, text: stdout + stderr };
}

async function read(mode: Mode, path: string): Promise<string> {
  const { code, text } = await inside(mode, "/bin/busybox", "cat", path);
  assert.equal(code, 0, text);
  return text;
}

/** Words of a command line that begin with `ip=`. */
function ipWords(cmdline: string): string[] {
  return cmdline
    .trim()
    .split(/\s+/)
    .filter((word) => word.startsWith("ip="));
}

/** Arguments of this mode's hypervisor, as the kernel has them. */
function hypervisorArguments(mode: Mode): string[] {
  return readFileSync(`/proc/${vms[mode].pid}/cmdline`, "utf8").split("\0");
}

/** A GET of the outside web server's page, in the guest. */
function fetchOutside(mode: Mode): Promise<{ readonly code: number | null; readonly text: string }> {
  const request = `printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 10 ${OUTSIDE_ADDRESS} 80`;
  return inside(mode, "sh", "-c", request);
}

test("one VM of each mode runs at once; a VM's own network wins over the manifest's, whole, in any case and spacing", async () => {
  const create = (mode: Mode, ...flags: string[]) =>
    house.volarJson<Vm>("vms", "create", NAMES[mode], "--plugin", "probe", ...flags, "--wait=300");
  const [bridged, dhcp, vsock] = await Promise.all([
    create("bridged", "--network", " Bridged "),
    create("dhcp"),
    create("vsock", "--network", "VSOCK"),
  ]);
  vms = { bridged, dhcp, vsock };
  for (const mode of MODES) assert.deepEqual([vms[mode].status, vms[mode].network.mode], ["running", mode]);
  // Merged with the manifest's, bridged would be on the LAN, and vsock refused: it has no bridge.
  assert.deepEqual(
    [bridged.network.bridge, dhcp.network.bridge, vsock.network.bridge],
    ["vbr0", LAN_BRIDGE, undefined],
  );
});

test("a tap is on the managed bridge for bridged, on the named one for dhcp, and there is none for vsock", () => {
  const taps = ipJson("link", "show").filter(({ ifname }) => String(ifname).startsWith("vttap-"));
  const seen = taps.map(({ ifname, master }) => [ifname, master]);
  assert.deepEqual(seen.sort(), [
    ["vttap-bridged1", "vbr0"],
    ["vttap-lan1", LAN_BRIDGE],
  ]);
  assert.deepEqual(
    MODES.map((mode) => vms[mode].network.tap),
    ["vttap-bridged1", "vttap-lan1", undefined],
  );
  const networked = MODES.filter((mode) => hypervisorArguments(mode).includes("-netdev"));
  assert.deepEqual(networked, ["bridged", "dhcp"]);
});

test("the address is from the managed pool for bridged, from the LAN's server for dhcp, and there is none for vsock", () => {
  assert.deepEqual(vms.bridged.network.addresses, ["192.168.127.2/24"]);
  assert.match(vms.dhcp.network.addresses.join(), /^10\.77\.0\.[5-9]\d\/24$/);
  assert.deepEqual(vms.vsock.network.addresses, []);
  const leases = readFileSync(join(house.directory, "dnsmasq.leases"), "utf8");
  assert.deepEqual(
    leases
      .trim()
      .split("\n")
      .map((line) => line.split(" ").slice(1, 3)),
    [[vms.dhcp.mac_address, vms.dhcp.ip_address]],
  );
  const permanent = ip("neigh", "show")
    .split("\n")
    .filter((line) => line.includes("PERMANENT"));
  assert.deepEqual(
    permanent.map((line) => line.split(" ")[0]),
    ["192.168.127.2"],
    "the host keeps a neighbour only for what it leased itself",
  );
});

test("ip= stands on the kernel's command line for bridged, in the contract's words, and for no other mode", async () => {
  const words = "ip=192.168.127.2::192.168.127.1:255.255.255.0:bridged1:eth0:off";
  const expected = { bridged: [words], dhcp: [], vsock: [] } as const;
  for (const mode of MODES) {
    const args = hypervisorArguments(mode);
    assert.deepEqual(ipWords(args[args.indexOf("-append") + 1] ?? ""), expected[mode], mode);
    assert.deepEqual(ipWords(await read(mode, "/proc/cmdline")), expected[mode], mode);
  }
});

test("the guest has lo and eth0 with its address, or lo alone; and its host name is the VM's, made fit", async () => {
  for (const mode of MODES) {
    const { text } = await inside(mode, "/bin/busybox", "ls", "/sys/class/net");
    assert.deepEqual(text.trim().split(/\s+/).sort(), mode === "vsock" ? ["lo"] : ["eth0", "lo"], mode);
    const address = await inside(mode, "/bin/busybox", "ip", "-o", "-4", "address", "show");
    const own = [...address.text.matchAll(/: eth0 +inet (\S+)/g)].map((match) => match[1]);
    assert.deepEqual(own, vms[mode].network.addresses, mode);
  }
  const hostnames = await Promise.all(
    MODES.map(async (mode) => (await read(mode, "/proc/sys/kernel/hostname")).trim()),
  );
  assert.deepEqual(hostnames, ["bridged1", "lan-1", "vsock--1"]);
});

test("the name server is the host's word for bridged, the DHCP server's for dhcp, and there is none for vsock", async () => {
  const servers = async (mode: Mode) => {
    const { text } = await inside(mode, "/bin/busybox", "cat", "/etc/resolv.conf");
    return [...text.matchAll(/^nameserver (\S+)$/gm)].map((match) => match[1]);
  };
  assert.deepEqual(await servers("bridged"), [OUTSIDE_ADDRESS]);
  assert.deepEqual(await servers("dhcp"), ["10.77.0.53"]);
  assert.deepEqual(await servers("vsock"), []);
});

test("the outside is reached through the host for bridged, through the LAN's own router for dhcp, and never for vsock", async () => {
  const gateway = async (mode: Mode) =>
    /^default via (\S+)/m.exec((await inside(mode, "/bin/busybox", "ip", "route", "show")).text)?.[1];
  assert.deepEqual(await Promise.all(MODES.map(gateway)), ["192.168.127.1", LAN_SERVER, undefined]);
  for (const mode of ["bridged", "dhcp"] as const) {
    const { code, text } = await fetchOutside(mode);
    assert.equal(code, 0, text);
    assert.match(text, new RegExp(OUTSIDE_PAGE), mode);
  }
  const none = await fetchOutside("vsock");
  assert.notEqual(none.code, 0);
  assert.match(none.text, /unreachable/i);
});

test("each VM's page comes through the proxy; its own address serves it to the host for bridged, to the LAN for dhcp", async () => {
  for (const mode of MODES) {
    const page = await fetchInTime(`http://127.0.0.1:7777/api/v1/vms/${NAMES[mode]}/agent/`);
    assert.equal(await page.text(), "probe\n", mode);
  }
  assert.equal(await (await fetchInTime(`http://${vms.bridged.ip_address}/`)).text(), "probe\n");
  assert.equal(await lan.fetch(vms.dhcp.ip_address), "probe\n");
});

test("deleted, they leave no tap, no neighbour and no process, and the LAN's bridge as it was", async () => {
  await house.volarDone("vms", "delete", ...Object.values(NAMES));
  assert.deepEqual(
    ipJson("link", "show").filter(({ ifname }) => String(ifname).startsWith("vttap-")),
    [],
  );
  assert.doesNotMatch(ip("neigh", "show"), /PERMANENT/);
  assert.deepEqual(await house.hypervisors(), []);
  assert.deepEqual(
    ipJson("link", "show", "master", LAN_BRIDGE).map(({ ifname }) => ifname),
    ["lan-port"],
  );
});
