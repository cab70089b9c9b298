import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, before } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { Vm } from "@volant/contract";
import type { Finding } from "@volant/host";
import { Netlink } from "@volant/netlink";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { fetchInTime } from "../patience.ts";
import { type House, openHouse, runProgram } from "./house.ts";
import { OUTSIDE_ADDRESS, OUTSIDE_NAME, OUTSIDE_PAGE, openOutsideWorld } from "./outside-world.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

/** volantd is woken by the kernel; this is how long a host that is busy may take, not how long it takes. */
const DEADLINE_MS = 120_000;

let house: House;
let netlink: Netlink;
let vm: Vm;

before(async () => {
  house = await openHouse({ env: { VOLANT_DNS: OUTSIDE_ADDRESS } });
  netlink = await Netlink.open();
  const directory = join(house.directory, "probe");
  mkdirSync(directory);
  await house.volarDone("plugins", "install", buildProbePlugin(directory));
  vm = await house.volarJson<Vm>("vms", "create", "first", "--plugin", "probe", "--wait");
});

after(async () => {
  await netlink?.close();
  await house?.close();
});

/** Does something to the host, and waits until the guest's permanent neighbour entry is set, which volantd does last. */
async function untilRestored(damage: () => void): Promise<void> {
  const signal = AbortSignal.timeout(DEADLINE_MS);
  const events = netlink.subscribe(["neighbour"], { signal });
  damage();
  for await (const event of events) {
    if (event.type !== "neighbour" || event.action !== "set") continue;
    if (event.neighbour.address === vm.ip_address && event.neighbour.state === "permanent") return;
  }
  assert.fail(`nothing came back; volantd said:\n${house.log.slice(-3000)}`);
}

async function rules(): Promise<string> {
  return (await runProgram("iptables-save", [])).stdout
    .split("\n")
    .filter((line) => line.startsWith("-A"))
    .join("\n");
}

/** The parts come back one after another, and no event tells of the last: looks until all are there. */
async function assertWhole(mac: string, firewall: string): Promise<void> {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    try {
      return await assertWholeNow(mac, firewall);
    } catch (error) {
      if (!(error instanceof assert.AssertionError) || Date.now() > end) throw error;
      await delay(20);
    }
  }
}

async function assertWholeNow(mac: string, firewall: string): Promise<void> {
  const [bridge] = ipJson("link", "show", "dev", "vbr0");
  assert.ok(bridge !== undefined);
  assert.equal(bridge["address"], mac, "a guest remembers its gateway's MAC");
  assert.ok((bridge["flags"] as string[]).includes("UP"));
  const addresses = ipJson("-4", "address", "show", "dev", "vbr0").flatMap((entry) => entry["addr_info"] as unknown[]);
  assert.partialDeepStrictEqual(addresses, [{ local: "192.168.127.1", prefixlen: 24 }]);
  assert.equal(await rules(), firewall);
  assert.equal(readFileSync("/proc/sys/net/ipv4/ip_forward", "utf8"), "1\n");
  assert.equal(ipJson("link", "show", "dev", "vttap-first")[0]?.["master"], "vbr0");
  const neighbours = ipJson("neighbour", "show", "dev", "vbr0", "nud", "permanent");
  assert.partialDeepStrictEqual(neighbours, [{ dst: vm.ip_address, lladdr: vm.mac_address }]);
  assert.equal(await (await fetchInTime(`http://${vm.ip_address}/`)).text(), "probe\n");
  const ping = await (await fetchInTime(`http://${vm.ip_address}/cgi-bin/ping?192.168.127.1`)).text();
  assert.match(ping, /exit code 0/);
}

test("a bridge deleted under a running VM comes back: MAC, address, rules, forwarding, the tap's place, the neighbour; the guest answers", async () => {
  const mac = String(ipJson("link", "show", "dev", "vbr0")[0]?.["address"]);
  const firewall = await rules();
  const [hypervisor] = await house.hypervisors();
  await untilRestored(() => {
    writeFileSync("/proc/sys/net/ipv4/ip_forward", "0");
    execFileSync("nft", ["flush", "ruleset"]);
    ip("link", "delete", "vbr0");
  });
  await assertWhole(mac, firewall);
  assert.match(house.log, /parts of the host's set-up were gone, and are there again/);
  assert.deepEqual(await house.hypervisors(), [hypervisor], "it is the same VM");
  assert.equal((await house.vms())[0]?.status, "running");
});

test("a bridge that was set down, and one that lost its address, are put right", async () => {
  const mac = String(ipJson("link", "show", "dev", "vbr0")[0]?.["address"]);
  const firewall = await rules();
  await untilRestored(() => void ip("link", "set", "dev", "vbr0", "down"));
  await assertWhole(mac, firewall);
  const signal = AbortSignal.timeout(DEADLINE_MS);
  const events = netlink.subscribe(["address"], { signal });
  ip("address", "delete", "192.168.127.1/24", "dev", "vbr0");
  for await (const event of events) {
    if (event.type === "address" && event.action === "set" && event.address.address === "192.168.127.1") break;
  }
  await assertWhole(mac, firewall);
});

test("a running guest's way out, masqueraded, is there again after each way to take it away", async () => {
  const request = () => fetchInTime(`http://${vm.ip_address}/cgi-bin/fetch?${OUTSIDE_NAME}`);
  const world = await openOutsideWorld(house.directory);
  try {
    for (const damage of [
      () => {},
      () => void execFileSync("nft", ["flush", "ruleset"]),
      () => writeFileSync("/proc/sys/net/ipv4/ip_forward", "0"),
      () => writeFileSync("/proc/sys/net/ipv4/conf/vbr0/forwarding", "0"),
      () => void ip("link", "delete", "vbr0"),
    ]) {
      damage();
      const end = Date.now() + DEADLINE_MS;
      // A guest's connection that began in between is lost: each time it is another one.
      for (let answer = ""; !answer.includes(OUTSIDE_PAGE);) {
        assert.ok(Date.now() < end, `${String(damage)}: ${answer}\nvolantd said:\n${house.log.slice(-3000)}`);
        answer = await request().then(
          (response) => response.text(),
          (error: unknown) => String(error),
        );
      }
    }
  } finally {
    await world.close();
  }
});

test("the doctor asks volantd for its leases, and finds nothing stale about a VM that runs", async () => {
  const { stdout } = await house.volar("doctor", "--json");
  const findings = JSON.parse(stdout) as Finding[];
  const about = (check: Finding["check"]) => findings.find((finding) => finding.check === check);
  assert.match(about("subnet_pool")?.sentence ?? "", /^1 of the 253 addresses of 192\.168\.127\.0\/24 are leased$/);
  assert.deepEqual(
    ["stale_taps", "stale_processes", "stale_folders"].map((check) => about(check as Finding["check"])?.level),
    ["ok", "ok", "ok"],
  );
  assert.deepEqual(
    findings.filter(({ level }) => level === "broken"),
    [],
  );
  await house.stopVolantd();
  const silent = JSON.parse((await house.volar("doctor", "--json")).stdout) as Finding[];
  assert.equal(silent.find(({ check }) => check === "subnet_pool")?.level, "skipped");
  assert.deepEqual(
    silent.filter(({ check, level }) => check.startsWith("stale_") && level !== "ok"),
    [],
    "a VM that goes on without volantd is not stale",
  );
  await house.startVolantd();
});

test("an undo while volantd runs is not undone by it", async () => {
  await house.volarDone("vms", "delete", "first");
  await house.volarDone("setup", "--undo");
  // volantd has seen the bridge go by the time it answers what comes after it.
  const refused = await house.volar("vms", "create", "second", "--plugin", "probe");
  assert.notEqual(refused.code, 0);
  assert.match(refused.stderr, /bridge vbr0 does not exist/);
  assert.deepEqual(
    ipJson("link", "show").filter(({ ifname }) => ifname === "vbr0"),
    [],
  );
});

test("volantd says when it starts what is wrong with the host, a line each with the check's name", async () => {
  await house.stopVolantd();
  const said = house.log.length;
  await house.startVolantd();
  // It looks while it serves already.
  const told = () =>
    [...house.log.slice(said).matchAll(/^.*\n/gm)].flatMap(
      ([line]) => (JSON.parse(line) as { check?: string }).check ?? [],
    );
  const deadline = Date.now() + DEADLINE_MS;
  while (!["setup", "bridge", "forwarding"].every((check) => (told() as readonly string[]).includes(check))) {
    assert.ok(Date.now() < deadline, `it does not say so: ${house.log.slice(said)}`);
    await delay(50);
  }
  const checks = told();
  assert.ok(checks.includes("setup") && checks.includes("bridge") && checks.includes("forwarding"), checks.join());
  assert.ok(!checks.includes("masquerade"), "what needs a program to look at is left to volar doctor");
  assert.equal(new Set(checks).size, checks.length);
});
