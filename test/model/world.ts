/**
 * What a run of the model acts on: a house, clients that work side by side, and the faults that are under way. Each client carries out its operations one after the
 * other; what fails in one of them ends the run.
 */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { PATIENCE_MS, fetchInTime, within } from "../patience.ts";
import type { House } from "../vm/house.ts";
import type { Knowledge } from "./knowledge.ts";

const API = "http://127.0.0.1:7777/api/v1/";
/** Of what happened last, that a failure shows. */
const MOST_TOLD = 60;
/** How far a client may be behind the run: so that faults happen among the orders that they stand among. */
const MOST_BEHIND = 4;

export interface Question {
  readonly method: string;
  readonly path: string;
  readonly body?: object | undefined;
  /** The client hangs up so long after it has asked, and asks again. */
  readonly hangUpAfterMs?: number | undefined;
}

export interface Answer {
  readonly status: number;
  /** Of an error. */
  readonly code: string | undefined;
  readonly body: unknown;
  /** It was asked more than once, since the connection broke: an earlier attempt may have done it. */
  readonly repeated: boolean;
  /** The bridge or the rules were missing at some time meanwhile. */
  readonly troubled: boolean;
}

/** Resolved for as long as volantd can be asked. */
class Gate {
  #open = Promise.withResolvers<void>();

  constructor() {
    this.#open.resolve();
  }

  close(): void {
    this.#open = Promise.withResolvers<void>();
  }

  open(): void {
    this.#open.resolve();
  }

  passed(): Promise<void> {
    return within(this.#open.promise, "a volantd that answers");
  }
}

export class World {
  readonly house: House;
  readonly installation: string;
  /** By name: of VMs that one client has for itself. */
  readonly known = new Map<string, Knowledge>();
  /** Ids of VMs whose sockets were taken away in some run of theirs. */
  readonly wiped = new Set<number>();
  /** Closed while volantd is being killed and started. */
  readonly gate = new Gate();
  /** Operations of clients that were answered and found right. */
  operations = 0;
  readonly #lanes = new Map<number, Promise<void>[]>();
  readonly #told: string[] = [];
  readonly #started = performance.now();
  #failure: { readonly error: unknown } | undefined;
  #troubles = 0;
  #troublesUnderWay = 0;

  constructor(house: House, installation: string) {
    this.house = house;
    this.installation = installation;
  }

  /**
   * Has a client do something once it has done what it was given before. Resolves at once, or where the client is behind, when it has caught up somewhat.
   *
   * @throws the first failure of any client
   */
  async enqueue(client: number, work: () => Promise<void>): Promise<void> {
    this.#throwFailure();
    const lane = this.#lanes.get(client) ?? [];
    const before = lane.at(-1) ?? Promise.resolve();
    const done = before.then(async () => {
      if (this.#failure !== undefined) return;
      try {
        await work();
      } catch (error) {
        this.#failure ??= { error };
      }
    });
    lane.push(done);
    this.#lanes.set(client, lane);
    if (lane.length > MOST_BEHIND) await this.#ended([lane.shift()]);
    this.#throwFailure();
  }

  /** Resolves when every client has done all that it was given. @throws the first failure */
  async join(): Promise<void> {
    await this.settled();
    this.#throwFailure();
  }

  /** As {@link join}, of a run that has failed: for whoever tidies up. */
  async settled(): Promise<void> {
    await this.#ended([...this.#lanes.values()].flat());
  }

  async #ended(work: readonly (Promise<void> | undefined)[]): Promise<void> {
    await within(Promise.all(work), "clients' answers", () => this.#lastTold(), 3 * PATIENCE_MS);
  }

  #lastTold(): string {
    return this.#told.slice(-MOST_TOLD).join("\n");
  }

  #throwFailure(): void {
    if (this.#failure === undefined) return;
    const { error } = this.#failure;
    const message = error instanceof Error ? error.message : String(error);
    throw new Error(`${message}\nwhat happened last:\n${this.#lastTold()}`, { cause: error });
  }

  tell(line: string): void {
    this.#told.push(`${((performance.now() - this.#started) / 1000).toFixed(2)} ${line}`);
    if (this.#told.length > 4 * MOST_TOLD) this.#told.splice(0, MOST_TOLD);
  }

  /** While `work` runs, what needs the network may be refused. */
  async inTrouble(work: () => Promise<void>): Promise<void> {
    this.#troubles += 1;
    this.#troublesUnderWay += 1;
    try {
      await work();
    } finally {
      this.#troublesUnderWay -= 1;
    }
  }

  /** Asks volantd; again, with the same `Idempotency-Key`, for as long as the connection breaks. Any answer but one of the contract's fails. */
  async ask(question: Question): Promise<Answer> {
    const { method, path, body } = question;
    const headers: Record<string, string> = { "idempotency-key": randomUUID() };
    if (body !== undefined) headers["content-type"] = "application/json";
    const isTroubled = this.#troublesUnderWay > 0;
    const troubles = this.#troubles;
    const deadline = performance.now() + PATIENCE_MS;
    let { hangUpAfterMs } = question;
    for (let attempt = 0; ; attempt += 1) {
      await this.gate.passed();
      try {
        const signal = hangUpAfterMs === undefined ? null : AbortSignal.timeout(hangUpAfterMs);
        const text = body === undefined ? {} : { body: JSON.stringify(body) };
        const response = await fetchInTime(API + path, { method, headers, signal, ...text });
        const said = await response.text();
        const answer = said === "" ? undefined : (JSON.parse(said) as { readonly code?: string });
        assert.ok(response.status !== 500, `${method} ${path}: 500 ${said}`);
        const troubled = isTroubled || this.#troubles !== troubles;
        const { status } = response;
        return { status, code: status < 400 ? undefined : answer?.code, body: answer, repeated: attempt > 0, troubled };
      } catch (error) {
        if (!isBroken(error) || performance.now() > deadline) throw error;
        hangUpAfterMs = undefined;
        // A volantd that was killed is gone a moment before the fault that did it knows.
        await new Promise(setImmediate);
      }
    }
  }
}

/** Whether the connection broke, or the client hung up itself. */
function isBroken(error: unknown): boolean {
  return (
    error instanceof Error && (error.message === "fetch failed" || ["TimeoutError", "TypeError"].includes(error.name))
  );
}
