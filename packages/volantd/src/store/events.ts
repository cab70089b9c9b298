/**
 * What happened, as far as it is kept: the newest so many, and none older than so long. What is dropped is always the oldest, so what is kept has no holes.
 *
 * Ids grow for ever, over restarts, clocks that jump and commits that fail. Most are given to events that are kept, some to lines of logs, which are not: so a
 * mark in the database says up to where ids may have been given out, and a new run begins above it.
 */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import type { VmEvent } from "@volant/contract";
import type { EventRange, NumberedEvent } from "../engine/use-cases.ts";
import { Statements } from "./statements.ts";
import { FIRST_EVENT_ID, type EventMarks } from "./store.ts";

export interface EventsKept {
  /** How many are kept at most; up to a tenth more, or 100, for a moment. */
  readonly count: number;
  /** Milliseconds after which they are dropped, by the clock of the host. */
  readonly ageMs: number;
}

export const DEFAULT_EVENTS_KEPT: EventsKept = { count: 20_000, ageMs: 30 * 24 * 60 * 60 * 1000 };

/** A run may give out so many ids before it moves the mark; the rest of a run's is left out by the next. There is room for 900,000 runs. */
const RESERVED_IDS = 1_000_000_000;
/** How often the mark is looked at; far more often than it has to be moved. */
const IDS_PER_LOOK = 1_000_000;
const MAX_DROP_EVERY = 100;

const RESERVED = "events_reserved";
const DROPPED = "events_dropped";
/** Written by a restore. */
const LOST_AFTER = "events_lost_after";
const LOST_BEFORE = "events_lost_before";

/** Events, in the store's database. Its writes are part of a transaction that the caller has begun. */
export class Events {
  readonly #kept: EventsKept;
  readonly #statements: Statements;
  readonly #dropEvery: number;
  /** Since something was last dropped. A run begins with that, or many short runs would keep more and more. */
  #added: number;
  #lastId: number;
  /** Up to this id the mark is known to be ahead. */
  #looked: number;

  constructor(database: DatabaseSync, kept: EventsKept) {
    this.#statements = new Statements(database);
    this.#kept = kept;
    this.#dropEvery = Math.max(1, Math.min(MAX_DROP_EVERY, Math.floor(kept.count / 10)));
    this.#added = this.#dropEvery;
    this.#lastId = Math.max(this.#mark(RESERVED) ?? 0, FIRST_EVENT_ID - 1);
    this.#looked = this.#lastId;
  }

  #sql(text: string): StatementSync {
    return this.#statements.get(text);
  }

  #mark(key: string): number | undefined {
    const value = this.#sql("SELECT value FROM meta WHERE key = ?").get(key)?.["value"];
    return value === undefined ? undefined : Number(value);
  }

  #setMark(key: string, value: number): void {
    this.#sql("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value").run(
      key,
      String(value),
    );
  }

  /** An id that nothing else has had, or will have. */
  takeId(): number {
    const id = this.#lastId + 1;
    if (id > this.#looked) {
      if ((this.#mark(RESERVED) ?? 0) < id + RESERVED_IDS / 2) this.#setMark(RESERVED, id + RESERVED_IDS);
      this.#looked = id + IDS_PER_LOOK;
    }
    this.#lastId = id;
    return id;
  }

  /** To be called when a transaction was undone: the mark that it may have moved has to be looked at again, and what it dropped is there again. */
  undone(): void {
    this.#looked = this.#lastId;
    this.#added = this.#dropEvery;
  }

  /** @returns its id */
  add(event: VmEvent, nowMs: number): number {
    const id = this.takeId();
    this.#sql("INSERT INTO events (id, name, type, at, event) VALUES (?, ?, ?, ?, ?)").run(
      id,
      event.name,
      event.type,
      Date.parse(event.timestamp),
      JSON.stringify(event),
    );
    this.#added += 1;
    if (this.#added >= this.#dropEvery) {
      this.#added = 0;
      this.drop(nowMs);
    }
    return id;
  }

  /** Drops what is too old or too much. */
  drop(nowMs: number): void {
    const id = (query: string, value: number): number | undefined => {
      const found = this.#sql(query).get(value)?.["id"];
      return found === undefined ? undefined : Number(found);
    };
    const tooMany = id("SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?", this.#kept.count) ?? 0;
    // Times need not be in order: what is dropped ends before the first that is young.
    const young = id("SELECT id FROM events WHERE at >= ? ORDER BY id LIMIT 1", nowMs - this.#kept.ageMs);
    const through = Math.max(tooMany, young === undefined ? this.#lastId : young - 1);
    if (this.#sql("DELETE FROM events WHERE id <= ?").run(through).changes > 0) this.#setMark(DROPPED, through);
  }

  /** Kept ones in a range, in order of their ids. */
  read({ after, through, filter = {}, limit, newest = false }: EventRange): NumberedEvent[] {
    const conditions: string[] = ["id > ?", "id <= ?"];
    const values: SQLInputValue[] = [after ?? 0, through ?? Number.MAX_SAFE_INTEGER];
    for (const [column, among] of [
      ["name", filter.names],
      ["type", filter.types],
    ] as const) {
      if (among === undefined) continue;
      // One list as one value: the text of the statement does not depend on how many there are.
      conditions.push(`${column} IN (SELECT value FROM json_each(?))`);
      values.push(JSON.stringify(among));
    }
    if (filter.sinceMs !== undefined) {
      conditions.push("at >= ?");
      values.push(filter.sinceMs);
    }
    const order = newest ? "DESC" : "ASC";
    const rows = this.#sql(
      `SELECT id, event FROM events WHERE ${conditions.join(" AND ")} ORDER BY id ${order} LIMIT ?`,
    ).all(...values, limit);
    return rows.map((row) => ({ id: Number(row["id"]), event: JSON.parse(String(row["event"])) as VmEvent }));
  }

  marks(): EventMarks {
    const [after, before] = [this.#mark(LOST_AFTER), this.#mark(LOST_BEFORE)];
    return {
      last: this.#lastId,
      dropped: this.#mark(DROPPED) ?? 0,
      ...(after === undefined || before === undefined ? {} : { lost: { after, before } }),
    };
  }
}
