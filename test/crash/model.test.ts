/**
 * The model (test/model): eight clients at once order whatever comes to fast-check's mind, while processes are killed and the host is changed under
 * volantd; every answer is one that a user could expect, and at rest the host holds what volantd shows, and nothing else.
 *
 * Seeds are fixed, so that a failure is somebody's change and not chance; `npm run bench -- soak` draws new ones. VOLANT_MODEL_SEED, with VOLANT_MODEL_PATH and
 * VOLANT_MODEL_REPLAY as a failure prints them, runs one case.
 */
import assert from "node:assert/strict";
import test, { after } from "node:test";
import type { Extent } from "../model/commands.ts";
import { Runner } from "../model/runner.ts";
import { enterOwnNamespace } from "../namespace.ts";

enterOwnNamespace(import.meta.url);

/** Each has more than a thousand orders. */
const SEEDS = [20_260_804, 20_260_805];
const RUNS = 6;
const MOST_COMMANDS = 420;
const LEAST_OPERATIONS = 1000;
/** Below what scripts/test.ts gives a test, so that a failure on a slow machine still shows the smallest case found so far. */
const WITHIN_MS = 420_000;
const extent: Extent = { clients: 8, faults: true, misdeeds: true };
const runner = new Runner();

after(async () => {
  await runner.close();
});

const { VOLANT_MODEL_SEED: seedText, VOLANT_MODEL_PATH: path, VOLANT_MODEL_REPLAY: replayPath } = process.env;
const seeds = seedText === undefined ? SEEDS : [Number(seedText)];

for (const seed of seeds) {
  test(`a thousand orders of eight clients with faults among them (seed ${seed}) are answered as users may expect, and nothing is lost, doubled or left`, async (context) => {
    const campaign = {
      extent,
      mostCommands: MOST_COMMANDS,
      runs: RUNS,
      seed,
      path,
      replayPath,
      shrinkWithinMs: WITHIN_MS,
    };
    const { failed, operations, report } = await runner.campaign(campaign);
    assert.ok(!failed, report);
    context.diagnostic(`${operations} operations`);
    assert.ok(seedText !== undefined || operations >= LEAST_OPERATIONS, `${operations} operations`);
  });
}
