/** volantd with more VMs than a bridge has ports: the managed network goes on over further bridges, through a kill, a restart and harm done to them. */
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import test, { after, before } from "node:test";
import { enterOwnNamespace, ip, ipJson } from "../namespace.ts";
import { inParallel, StandInHouse } from "./stand-in.ts";

enterOwnNamespace(import.meta.url);

/** Six taps on the managed bridge, and seven on each of two further ones. */
const BRIDGE_PORTS = 8;
const VMS = 20;
const PATIENCE_MS = 60_000;
const names = Array.from({ length: VMS }, (_none, index) => `vm-${index}`);
let at: StandInHouse;

before(async () => {
  at = await StandInHouse.open({ VOLANT_BRIDGE_PORTS: String(BRIDGE_PORTS) });
});

after(async () => {
  await at?.close();
});

/** Taps by the bridge that they are ports of. */
function taps(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { ifname, master } of ipJson("link", "show")) {
    if (!String(ifname).startsWith("vttap-")) continue;
    counts[String(master)] = (counts[String(master)] ?? 0) + 1;
  }
  return counts;
}

const SPREAD = { vbr0: 6, "vbr0-1": 7, "vbr0-2": 7 };

/** Trunks that are up, at both ends, where they belong. */
function trunks(): string[] {
  return ipJson("link", "show")
    .filter(({ linkinfo, flags }) => {
      return (
        (linkinfo as { info_kind?: string } | undefined)?.info_kind === "veth" && (flags as string[]).includes("UP")
      );
    })
    .map(({ ifname, master }) => `${String(ifname)} on ${String(master)}`)
    .toSorted();
}

const TRUNKS = ["vbr0-1f on vbr0-1", "vbr0-1n on vbr0", "vbr0-2f on vbr0-2", "vbr0-2n on vbr0"];

/** The parts come back one after another, and no event tells of the last: looks until all are there. */
async function untilWhole(): Promise<void> {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const seen = { taps: taps(), trunks: trunks() };
    // Asked for by its name, a bridge that is just gone would be an error.
    const neighbours = ipJson("neigh", "show", "nud", "permanent").filter(({ dev }) => dev === "vbr0").length;
    try {
      assert.deepEqual({ ...seen, neighbours }, { taps: SPREAD, trunks: TRUNKS, neighbours: VMS });
      return;
    } catch (error) {
      // Its message tells what was seen.
      if (Date.now() > end) throw error;
      await delay(50);
    }
  }
}

test("VMs beyond a bridge's ports run like the others, on further bridges that users need not know", async () => {
  await inParallel(VMS, names, async (name) => void (await at.create(name)));
  await at.until((vms) => vms.length === VMS && vms.every(({ status }) => status === "running"));
  await untilWhole();
  const bridges = (await at.list()).map(({ network }) => network.bridge);
  assert.equal(new Set(bridges).size, 1, "VMs show one network");
  await at.ask(201, "POST", "vms", { name: "one-more", plugin: "probe", memory_mb: 96 });
  await at.until((vms) => vms.some(({ reason = "" }) => /no further tap can join vbr0/.test(reason)));
  await at.delete("one-more");
});

test("a volantd that was killed finds them again, and moves none", async () => {
  const before = (await at.list()).map(({ name, pid }) => [name, pid]).toSorted();
  await at.house.stopVolantd("SIGKILL");
  await at.house.startVolantd();
  await at.untilAttached((vms) => vms.every(({ status, agent }) => status === "running" && agent.attached));
  assert.deepEqual((await at.list()).map(({ name, pid }) => [name, pid]).toSorted(), before);
  await untilWhole();
});

test("what a person does to bridges and trunks is put right, while volantd runs and while it does not", async () => {
  ip("link", "delete", "vbr0-1n");
  await untilWhole();
  ip("link", "delete", "vbr0-2");
  await untilWhole();
  ip("link", "delete", "vbr0");
  await untilWhole();
  await at.house.stopVolantd("SIGKILL");
  ip("link", "delete", "vbr0-1");
  ip("link", "delete", "vbr0-2f");
  await at.house.startVolantd();
  await untilWhole();
  assert.ok((await at.list()).every(({ status }) => status === "running"));
});

test("the doctor tells of further bridges, and finds nothing wrong with them", async () => {
  const { stdout } = await at.house.volar("doctor", "--json");
  const findings = JSON.parse(stdout) as {
    readonly check: string;
    readonly level: string;
    readonly sentence: string;
  }[];
  const ports = findings.filter(({ check }) => check === "bridge_ports");
  assert.deepEqual(
    ports.map(({ level }) => level),
    ["ok"],
  );
  assert.match(ports[0]?.sentence ?? "", /vbr0-1.*vbr0-2/);
});

test("deleted, they leave nothing", async () => {
  await inParallel(VMS, names, (name) => at.delete(name));
  assert.deepEqual(at.leaks(), []);
});
