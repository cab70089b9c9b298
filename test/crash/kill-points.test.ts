/**
 * volantd is killed (SIGKILL) wherever it waits, and before and after everything that it does without waiting; the next one is started; then what there is must be
 * what was asked for, or what there was before: in the store, the kernel, the processes and the files. What volantd passes is found while it runs: nobody lists it.
 *
 * VOLANT_KILL_POINTS=all kills at every moment of every scenario; without it, at each point in one scenario at least, and after every write of the store in all of
 * them. VOLANT_KILL_POINTS=list kills nothing and writes the list anew (kill-points/list.txt).
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test, { after, type TestContext } from "node:test";
import { enterOwnNamespace } from "../namespace.ts";
import { bestFirst, chooseMoments, type Moment, momentsOf, writesOf } from "./kill-points/choice.ts";
import { KillableHouse } from "./kill-points/killable-house.ts";
import { differingFunctions, functionsOf, listText } from "./kill-points/list.ts";
import { strayWrites } from "./kill-points/losses.ts";
import type { SeenPoint } from "./kill-points/point-line.ts";
import { SCENARIOS, type Scenario } from "./kill-points/scenarios.ts";
import { Trial } from "./kill-points/trial.ts";

enterOwnNamespace(import.meta.url);

const wanted = process.env["VOLANT_KILL_POINTS"];
const LIST = join(import.meta.dirname, "kill-points/list.txt");
/** How many must be met, of all scenarios together, of those that were seen before: another run may take another way, such as when an answer comes in two parts. */
const LEAST_MET = 0.8;
/** Fewer of them would mean that the points are found no longer. */
const LEAST_KILLS = 100;

let trial: Trial | undefined;
const covered = new Set<string>();
/** Functions that both runs of a scenario passed; and those that any did. */
const steady = new Set<string>();
const passed = new Set<string>();
let kills = 0;
let chosenKills = 0;

async function openTrial({ isAlone, environment }: Scenario): Promise<Trial> {
  if (trial === undefined) {
    trial = new Trial(await KillableHouse.open());
    await trial.house.start();
  }
  if (await trial.house.setEnvironment(environment?.(trial.house.at) ?? {})) {
    await trial.house.volantd.kill();
    await trial.house.start();
  }
  await trial.setBystander(isAlone !== true);
  return trial;
}

/** What failed left something behind, and nothing of it may be seen by the next scenario. */
async function abandonTrial(): Promise<void> {
  const house = trial?.house;
  trial = undefined;
  await house?.abandon();
}

after(async () => {
  await trial?.setBystander(false);
  await trial?.house.close();
});

/** Where it died; undefined where this run passed none of the moment's points. */
async function killIn(scenario: Scenario, moment: Moment): Promise<string | undefined> {
  for (const point of bestFirst(moment).slice(0, 2)) {
    try {
      if (await (trial as Trial).killAt(scenario, point)) return point;
    } catch (error) {
      throw new Error(`${scenario.name}; killed at ${point}: ${(error as Error).message}`, { cause: error });
    }
  }
  return undefined;
}

function noteFunctions(...runs: readonly (readonly SeenPoint[])[]): void {
  const [first = new Set<string>(), second = new Set<string>()] = runs.map((seen) =>
    functionsOf(seen.map(([point]) => point)),
  );
  for (const place of first) if (second.has(place)) steady.add(place);
  for (const place of [...first, ...second]) passed.add(place);
}

async function killEverywhere(context: TestContext, scenario: Scenario): Promise<void> {
  const at = await openTrial(scenario);
  const seen = await at.record(scenario);
  noteFunctions(seen, await at.record(scenario));
  const moments = momentsOf(seen);
  const fresh = chooseMoments(moments, covered);
  const chosen = wanted === "all" ? moments : wanted === "list" ? [] : fresh;
  const met: string[] = [];
  for (const moment of chosen) {
    const point = await killIn(scenario, moment);
    if (point === undefined) context.diagnostic(`not met again: ${moment.points[0]}`);
    else met.push(point);
  }
  kills += met.length;
  chosenKills += chosen.length;
  const counts = `${seen.length} points in ${moments.length} moments, ${fresh.length} of which have something new`;
  context.diagnostic(`${counts}; killed in ${met.length} of ${chosen.length}`);
  assert.ok(met.length > 0 || chosen.length === 0, `none of ${chosen.length} points was met again`);
}

for (const scenario of SCENARIOS) {
  test(`${scenario.name}: wherever volantd is killed, the next one finishes it, or there is no trace of it`, async (context) => {
    try {
      await killEverywhere(context, scenario);
    } catch (error) {
      await abandonTrial();
      throw error;
    }
  });
}

test("the list of points is that of the code", () => {
  if (wanted === "list") writeFileSync(LIST, listText(covered, steady));
  else assert.ok(kills >= LEAST_KILLS, `volantd was killed at ${kills} points`);
  assert.ok(kills >= chosenKills * LEAST_MET, `only ${kills} of ${chosenKills} points were met again`);
  const differing = differingFunctions(readFileSync(LIST, "utf8"), steady, passed);
  assert.deepEqual(differing, [], "run this file with VOLANT_KILL_POINTS=list, and look at what has changed");
});

test("every write of the store that the scenarios make is one that something goes wrong without", () => {
  // A new one needs a scenario that fails without it: see kill-points/losses.ts.
  assert.deepEqual(strayWrites(writesOf(covered)), { unknown: [], unseen: [] });
});
