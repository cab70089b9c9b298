/** Every write that the store makes is needed: with one left out, a scenario of the kill points does not come out as it must. */
import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { enterOwnNamespace } from "../namespace.ts";
import { KillableHouse } from "./kill-points/killable-house.ts";
import { LOSSES } from "./kill-points/losses.ts";
import { type Scenario, SCENARIOS } from "./kill-points/scenarios.ts";
import { Trial } from "./kill-points/trial.ts";

enterOwnNamespace(import.meta.url);

/** What comes about does so in a fraction of it; what does not is waited for in vain so long. */
const LIMIT_MS = 8000;

let house: KillableHouse;

before(async () => {
  house = await KillableHouse.open();
  await house.start();
});

after(async () => {
  await house?.close();
});

function scenarioNamed(name: string): Scenario {
  const scenario = SCENARIOS.find((other) => other.name === name);
  assert.ok(scenario !== undefined, `there is no scenario ${name}`);
  return scenario;
}

for (const { write, scenario, says } of LOSSES) {
  test(`without the write "${write.trim()}", "${scenario}" comes out wrong`, async () => {
    const tried = scenarioNamed(scenario);
    await house.setEnvironment({ ...tried.environment?.(house.at), VOLANT_TEST_OMIT: write });
    await house.volantd.kill();
    await house.start();
    try {
      await assert.rejects(new Trial(house, LIMIT_MS).record(tried), says);
    } finally {
      await house.setEnvironment({});
      await new Trial(house).recover(tried);
    }
  });
}
