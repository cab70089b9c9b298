/** As many real taps as no bridge of Linux takes, and as many neighbours as its table is said to hold. */
import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { MAX_BRIDGE_PORTS, runSetup, undoSetup } from "@volant/host";
import type { BridgeManager } from "../../packages/volantd/src/network/bridge-manager.ts";
import { placeLimits } from "../../packages/volantd/src/network/tap-places.ts";
import { macAddress } from "../../packages/volantd/src/model/mac.ts";
import { enterOwnNamespace, ipJson } from "../namespace.ts";
import { GATEWAY, Guest, INSTALLATION, openManager } from "./further-lan.ts";
import { type Scratch, scratchSetup } from "./setup-state.ts";

enterOwnNamespace(import.meta.url);

const TAPS = 1100;
const ids = Array.from({ length: TAPS }, (_none, index) => index + 1);
let scratch: Scratch;
let manager: BridgeManager;

before(async () => {
  scratch = scratchSetup({ subnet: "10.77.0.0/16", hostIp: GATEWAY });
  await runSetup(scratch.host, scratch.settings);
  manager = await openManager(scratch, { limits: placeLimits(MAX_BRIDGE_PORTS) });
  await manager.observe();
});

after(async () => {
  await manager.close();
  scratch[Symbol.dispose]();
});

/** Ports by bridge. */
function ports(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { master } of ipJson("link", "show")) {
    if (master !== undefined) counts[String(master)] = (counts[String(master)] ?? 0) + 1;
  }
  return counts;
}

test("1,100 taps are one network: 960 on the managed bridge, the rest on a further one, each with its permanent neighbour; deleted, none is left", async () => {
  const rest = [...ids];
  const work = async (): Promise<void> => {
    for (let vmId = rest.shift(); vmId !== undefined; vmId = rest.shift()) {
      await manager.createTap({ vmId, name: `vttap-${vmId}`, uid: 0 });
      await manager.setNeighbour({ address: 0x0a4d0100 + vmId, mac: macAddress(INSTALLATION, vmId) });
    }
  };
  await Promise.all(Array.from({ length: 16 }, work));
  assert.deepEqual(ports(), { vbr0: 961, "vbr0-1": 141 });
  const { taps, neighbours } = await manager.observe();
  assert.equal(taps.filter(({ bridge }) => bridge === "vbr0").length, TAPS);
  // gc_thresh3 is 1,024 by default, and counts no permanent entry (net/core/neighbour.c, neigh_alloc).
  assert.equal(neighbours.length, TAPS);

  const far = new Guest(1090);
  const near = new Guest(10);
  for (const guest of [near, far]) {
    Object.assign(guest, { tap: `vttap-${guest.vmId}`, address: `10.77.${1 + (guest.vmId >> 8)}.${guest.vmId & 255}` });
    guest.hold(guest.tap);
    await manager.putPolicy({ ...guest, mode: "bridged", addresses: [guest.address], antiSpoof: true });
  }
  await near.reaches(far);
  await far.reaches(near);
  for (const guest of [near, far]) {
    guest.stop();
    await manager.removePolicy(guest.vmId);
  }

  await Promise.all(taps.map((tap) => manager.deleteTap(tap)));
  await Promise.all(ids.map((vmId) => manager.deleteNeighbour(0x0a4d0100 + vmId)));
  assert.deepEqual((await manager.observe()).taps, []);
  await undoSetup(scratch.host);
  assert.deepEqual(ports(), {});
});
