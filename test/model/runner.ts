/** Runs of the model, each with the same house where the last one left it well, else with a new one. */
import fc from "fast-check";
import { StandInHouse } from "../crash/stand-in.ts";
import { ip } from "../namespace.ts";
import { runProgram } from "../vm/house.ts";
import { carryOutRun, runArbitrary, type Extent } from "./commands.ts";
import { taps } from "./faults.ts";
import { deleteAll } from "./quiet.ts";
import { World } from "./world.ts";

export interface Campaign {
  readonly extent: Extent;
  /** Commands of the longest run. */
  readonly mostCommands: number;
  readonly runs: number;
  readonly seed: number;
  /** As a failure printed them, to begin with the failing case. */
  readonly path?: string | undefined;
  readonly replayPath?: string | undefined;
  /** For how long at most, with all that went before, a failing run is made smaller; default: until it can't be. 0: it is shown as it is. */
  readonly shrinkWithinMs?: number;
}

export interface Outcome {
  readonly operations: number;
  readonly failed: boolean;
  /** The commands of the smallest failing run. */
  readonly smallest: readonly string[];
  /** The smallest failing run, how to run it again, how it failed, and what happened last. */
  readonly report: string;
}

type Commands = Iterable<fc.AsyncCommand<World, World>>;
type Details = fc.RunDetails<[Commands]>;

/** The network of a house that was left in disorder, taken away: it is in a namespace of the test's own. */
async function clearNetwork(): Promise<void> {
  for (const tap of taps()) ip("link", "del", tap);
  await runProgram("ip", ["link", "del", "vbr0"]);
  await runProgram("nft", ["flush", "ruleset"]);
}

/** Those of a failing run that were begun. */
function begunCommands({ counterexample }: Details): string[] {
  const [commands = []] = counterexample ?? [];
  return [...commands].filter((command) => "hasRan" in command && command.hasRan === true).map(String);
}

function reportText(details: Details, smallest: readonly string[]): string {
  const { seed, counterexamplePath, counterexample, numShrinks, errorInstance } = details;
  const replayPath = /replayPath="([^"]*)"/.exec(String(counterexample?.[0]))?.[1];
  return [
    `the smallest failing run, made smaller ${numShrinks} times:`,
    ...smallest.map((command) => `  ${command}`),
    `to run it again: VOLANT_MODEL_SEED=${seed} VOLANT_MODEL_PATH=${counterexamplePath} VOLANT_MODEL_REPLAY=${replayPath}`,
    errorInstance instanceof Error ? errorInstance.message : String(errorInstance),
  ].join("\n");
}

export class Runner {
  readonly #env: Readonly<Record<string, string>>;
  readonly #programs: string | undefined;
  #house: StandInHouse | undefined;

  /**
   * @param env added to the environment of volantd and volar
   * @param programs the folder of those two, where they are not the tests' own
   */
  constructor(env: Readonly<Record<string, string>> = {}, programs?: string) {
    this.#env = env;
    this.#programs = programs;
  }

  /** Whether this house is still lived in: one that a run has left in disorder is not. */
  has(house: StandInHouse): boolean {
    return this.#house === house;
  }

  /** The house that the next run happens in. */
  async open(): Promise<StandInHouse> {
    this.#house ??= await StandInHouse.open(this.#env, this.#programs);
    return this.#house;
  }

  /** Carries out a campaign; a run that fails is made smaller until it can't be. */
  async campaign({ extent, mostCommands, runs, seed, path, replayPath, shrinkWithinMs }: Campaign): Promise<Outcome> {
    let operations = 0;
    const property = fc.asyncProperty(runArbitrary(extent, mostCommands, replayPath), async (commands) => {
      operations += await this.#run(commands);
    });
    const bounded = shrinkWithinMs === undefined ? {} : { interruptAfterTimeLimit: shrinkWithinMs };
    const details = await fc.check(property, {
      seed,
      numRuns: runs,
      endOnFailure: shrinkWithinMs === 0,
      ...(path === undefined ? {} : { path }),
      ...(shrinkWithinMs === 0 ? {} : bounded),
    });
    const smallest = begunCommands(details);
    return { operations, failed: details.failed, smallest, report: reportText(details, smallest) };
  }

  /** How many orders were carried out. */
  async #run(commands: Commands): Promise<number> {
    const { house, installation } = await this.open();
    const world = new World(house, installation);
    try {
      await carryOutRun(world, commands);
      await this.#tidy(world);
      return world.operations;
    } catch (error) {
      await this.#recover(world);
      throw error;
    }
  }

  /** @throws Error when something of a VM is left */
  async #tidy(world: World): Promise<void> {
    await deleteAll(world);
    const left = this.#house?.leaks() ?? [];
    if (left.length > 0) throw new Error(`left behind: ${left.join(", ")}`);
  }

  /** Gives the house up where it can't be brought in order. */
  async #recover(world: World): Promise<void> {
    try {
      await world.settled();
      await this.#tidy(world);
    } catch {
      await this.abandon();
    }
  }

  /** Ends the house as it is, with all that is left of it. */
  async abandon(): Promise<void> {
    const house = this.#house;
    this.#house = undefined;
    await house?.abandon();
    await clearNetwork();
  }

  /** Leaves nothing. */
  async close(): Promise<void> {
    await this.#house?.close();
  }
}
