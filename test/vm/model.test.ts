/** The model (test/model) with real guests: a few VMs under QEMU, orders and faults among them. The many are test/crash/model.test.ts's. */
import assert from "node:assert/strict";
import { join } from "node:path";
import test, { after, before } from "node:test";
import fc from "fast-check";
import { carryOutRun, runArbitrary, type Extent } from "../model/commands.ts";
import { deleteAll } from "../model/quiet.ts";
import { World } from "../model/world.ts";
import { enterOwnNamespace } from "../namespace.ts";
import { leaks } from "../crash/stand-in.ts";
import { type House, openHouse } from "./house.ts";
import { buildProbePlugin } from "./probe-plugin.ts";

enterOwnNamespace(import.meta.url);

/** Fixed, as in test/crash/model.test.ts. */
const SEED = Number(process.env["VOLANT_MODEL_SEED"] ?? 20_260_803);
const MOST_COMMANDS = 60;
const LEAST_OPERATIONS = 40;
const extent: Extent = { clients: 3, ownEach: 1, shared: 0, faults: true, misdeeds: false };
let house: House;

before(async () => {
  house = await openHouse({ env: { VOLANT_SUBNET: "10.77.0.0/16", VOLANT_HOST_IP: "10.77.0.1" } });
  await house.volarDone("plugins", "install", buildProbePlugin(join(house.directory, "work")));
});

after(async () => {
  await house?.close();
});

test("orders and faults with three real guests are answered as users may expect, and nothing is lost, doubled or left", async (context) => {
  context.diagnostic(`seed ${SEED}`);
  const { installation } = await house.api<{ readonly installation: string }>("/api/v1/system/info");
  const candidates = fc.sample(runArbitrary(extent, MOST_COMMANDS), { seed: SEED, numRuns: 20 });
  const [commands] = candidates.filter((run) => [...run].length >= LEAST_OPERATIONS);
  assert.ok(commands !== undefined);
  const world = new World(house, installation);
  // Boots take too long for a failing run to be made smaller: what happened is told as it is.
  await carryOutRun(world, commands);
  context.diagnostic(`${world.operations} operations`);
  await deleteAll(world);
  assert.deepEqual(leaks(house, installation), []);
});
