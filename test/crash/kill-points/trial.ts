/** One scenario gone through: with every point noted, or with volantd killed at one of them. */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { type KillableHouse, within } from "./killable-house.ts";
import type { Order, SeenPoint } from "./point-line.ts";
import { NAME, type Deed, type Scenario, type World } from "./scenarios.ts";
import { untold } from "./told.ts";
import { crowded, forgetStrayEvents, lookAround, readEvents, readRow, rowText, startsOf } from "./world.ts";

/** A whole look takes programs and several milliseconds of a processor, which volantd has not meanwhile. */
const LOOK_EVERY_MS = 40;
const LIMIT_MS = 60_000;
/** What follows upon an outcome without being part of it, such as a log that is begun to be read, is over by then. */
const AFTERMATH_MS = 150;
const BYSTANDER = "bystander";

export class Trial {
  readonly house: KillableHouse;
  readonly #limitMs: number;
  /** The last event before the deed. */
  #lastEvent = 0;
  #bystander: { readonly id: number; readonly pid: number } | undefined;

  /** @param limitMs how long what comes of a deed may take */
  constructor(house: KillableHouse, limitMs = LIMIT_MS) {
    this.house = house;
    this.#limitMs = limitMs;
  }

  /** Has a VM beside it to which nothing is done, and nothing may happen; or has none. */
  async setBystander(isWanted: boolean): Promise<void> {
    const { at } = this.house;
    if (isWanted === (this.#bystander !== undefined)) return;
    if (!isWanted) {
      this.#bystander = undefined;
      await at.delete(BYSTANDER);
      return;
    }
    await at.create(BYSTANDER);
    const status = (): string => {
      const { status = "gone", reason } = readRow(at, BYSTANDER) ?? {};
      return reason === undefined ? status : `${status} (${reason})`;
    };
    await this.#until("the bystander is running", status, (seen) => seen === "running");
    const { id, pid } = await at.ask<{ readonly id: number; readonly pid: number }>(200, "GET", `vms/${BYSTANDER}`);
    this.#bystander = { id, pid };
  }

  /** The points that are passed, in order. Leaves nothing. */
  async record(scenario: Scenario): Promise<readonly SeenPoint[]> {
    await this.#setUp(scenario);
    const { volantd } = this.house;
    if (scenario.deed === undefined) {
      await this.#restart(scenario, { do: "record" });
    } else {
      await volantd.order({ do: "record" });
      await this.#do(scenario.deed);
    }
    await this.#reach(scenario.after);
    await sleep(AFTERMATH_MS);
    const seen = await this.house.volantd.order({ do: "rest" });
    this.#checkTold(scenario.tells);
    await this.#doAgain(scenario);
    await this.#clear(scenario);
    return seen;
  }

  /**
   * Kills volantd at that point, starts the next one, and checks what came of it. Leaves nothing.
   *
   * @returns false where the scenario was over and volantd had not come by the point
   * @throws Error with what there is and what should be
   */
  async killAt(scenario: Scenario, point: string): Promise<boolean> {
    await this.#setUp(scenario);
    const doomed = this.house.volantd;
    let answered: Response | undefined;
    if (scenario.deed === undefined) {
      await this.#restart(scenario, { do: "die", at: point });
    } else {
      await doomed.order({ do: "die", at: point });
      answered = await this.#doWhileDying(scenario.deed);
    }
    const { volantd } = this.house;
    if (!(await this.#isOver(scenario.after)) && (await this.#rests(volantd))) {
      await this.#clear(scenario);
      return false;
    }
    const isAccepted = scenario.isAccepted(readRow(this.house.at, NAME), this.house.at);
    if (answered !== undefined) {
      assert.ok(answered.ok, `the request was refused: ${answered.status}`);
      assert.ok(isAccepted, "the request was answered with success, and nothing of it is recorded");
    }
    this.#checkStarts();
    await this.house.start();
    await this.#reach(isAccepted ? scenario.after : (scenario.setUp.at(-1)?.world ?? []));
    this.#checkTold(isAccepted ? scenario.tells : []);
    await this.#doAgain(scenario);
    this.#checkStarts();
    await this.#clear(scenario);
    return true;
  }

  /** Takes away what is left of a VM, in whatever state: by a volantd of its own. */
  async recover(scenario: Scenario): Promise<void> {
    await this.house.volantd.kill();
    forgetStrayEvents(this.house.at);
    await this.house.start();
    await this.#clear(scenario);
  }

  /** Has it go on undisturbed. @returns false where it came by the point, and died, just then */
  async #rests(volantd: KillableHouse["volantd"]): Promise<boolean> {
    try {
      await volantd.order({ do: "rest" });
      return true;
    } catch (error) {
      if (!volantd.isDead) throw error;
      return false;
    }
  }

  /** Whether volantd dies before the world has become that one, or right after. */
  async #isOver(world: World): Promise<boolean> {
    const { volantd } = this.house;
    // Nobody looks into the database while the next volantd opens it.
    await this.#reach(world, { unless: () => volantd.isDead });
    await Promise.race([volantd.dead, sleep(AFTERMATH_MS)]);
    return volantd.isDead;
  }

  async #setUp({ setUp }: Scenario): Promise<void> {
    for (const { act, world } of setUp) {
      await this.#do(act, LIMIT_MS);
      await this.#reach(world, { limitMs: LIMIT_MS });
    }
    // Where a VM was made, that took longer.
    if (readRow(this.house.at, NAME) === undefined) await this.#settle();
    this.#lastEvent = readEvents(this.house.at, 0).at(-1)?.id ?? 0;
  }

  /** A volantd that has just begun is done with the bystander: of what it passes for that nothing is the scenario's. */
  async #settle(): Promise<void> {
    const { at } = this.house;
    if (this.#bystander === undefined) return;
    await at.untilAttached((vms) => vms.some(({ name, agent }) => name === BYSTANDER && agent.attached));
    await sleep(AFTERMATH_MS);
  }

  async #restart({ meanwhile }: Scenario, order: Order): Promise<void> {
    await this.house.volantd.kill();
    if (meanwhile !== undefined) await this.#do(meanwhile);
    await this.house.start(order);
  }

  async #doAgain({ again, after }: Scenario): Promise<void> {
    if (again === undefined) return;
    await this.#do(again);
    await this.#reach(after);
  }

  /** What happened since the deed is kept, and is told to who asks for it. */
  #checkTold(tells: readonly string[]): void {
    const events = readEvents(this.house.at, this.#lastEvent).map(({ text }) => text);
    const mine = events.filter((text) => !text.endsWith(` ${BYSTANDER}`));
    assert.deepEqual(untold(tells, mine), [], `events, of which there were ${mine.join(", ")}`);
  }

  async #do(act: Deed["act"], limitMs = this.#limitMs): Promise<void> {
    const answering = act(this.house.at, readRow(this.house.at, NAME));
    answering.catch(() => {});
    const answer = await within(answering, () => `no answer; there is ${this.#look().join(", ")}`, limitMs);
    const text = await answer?.text();
    assert.ok(answer?.ok !== false, `it was refused: ${answer?.status} ${text}`);
  }

  /** The answer; undefined when volantd died before it had given one, or none is due. */
  async #doWhileDying(act: Deed["act"]): Promise<Response | undefined> {
    const answering = act(this.house.at, readRow(this.house.at, NAME)).catch(() => undefined);
    // A connection whose peer was killed may be told late, or never.
    return await Promise.race([answering, this.house.volantd.dead.then(() => sleep(LOOK_EVERY_MS, undefined))]);
  }

  /** Deletes the VM, if it is there; then there must be nothing of it, its logs included. */
  async #clear({ clear }: Pick<Scenario, "clear">): Promise<void> {
    const { at } = this.house;
    if (clear !== undefined) await this.#do(clear);
    if (readRow(at, NAME) !== undefined) await this.#do(() => at.request("DELETE", `vms/${NAME}`));
    await this.#reach([], { withLogs: true });
    this.#checkStarts();
  }

  /** Resolves when there is what there should be; or when something has happened that keeps it from coming about. */
  async #reach(
    world: World,
    { withLogs = false, unless = (): boolean => false, limitMs = this.#limitMs } = {},
  ): Promise<void> {
    const { at } = this.house;
    const wanted = JSON.stringify(world);
    const look = (): string => {
      if (unless()) return wanted;
      const row = readRow(at, NAME);
      // The kernel is asked last: that takes programs.
      if (row !== undefined && !world.includes(rowText(row))) return rowText(row);
      return JSON.stringify(this.#look().filter((line) => withLogs || line !== "log"));
    };
    await this.#until(`the world is ${wanted}`, look, (seen) => seen === wanted, limitMs);
  }

  async #until(
    what: string,
    look: () => string,
    isIt: (seen: string) => boolean,
    limitMs = this.#limitMs,
  ): Promise<void> {
    const deadline = performance.now() + limitMs;
    let seen = look();
    while (!isIt(seen)) {
      if (performance.now() > deadline) throw new Error(`${what}: not within ${limitMs} ms; it is ${seen}`);
      await sleep(LOOK_EVERY_MS);
      seen = look();
    }
  }

  #look(): string[] {
    const { id } = this.#bystander ?? {};
    return lookAround(this.house.at, new Set(id === undefined ? [] : [id]));
  }

  /** No run of a VM was started twice, no VM has two processes, and the bystander is as it was. */
  #checkStarts(): void {
    const { at } = this.house;
    const twice = [...startsOf(at)].filter(([, count]) => count > 1).map(([run, count]) => `${run} ${count} times`);
    assert.deepEqual(twice, [], "runs of a VM (id:generation) that were started more than once");
    assert.deepEqual(crowded(at), [], "VMs with more than one process");
    if (this.#bystander === undefined) return;
    const { id, pid } = this.#bystander;
    assert.equal(startsOf(at).get(`${id}:1`), 1, "the bystander was started once");
    process.kill(pid, 0);
    assert.equal(readRow(at, BYSTANDER)?.status, "running", "the bystander is running");
  }
}
