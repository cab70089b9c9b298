/**
 * Rows of VMs as they were read last. SQLite itself says which of them were written since: temporary triggers, seen by this connection alone, call
 * back for every row that a record is made of, whichever statement writes it. They also tell whether what was written is more than what lists show.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { Recent } from "../recent.ts";
import type { VmRecord } from "./store.ts";

/** What lists show of a VM can be made anew from what is observed: nothing relies on it. */
const SHOWN_ONLY: readonly unknown[] = ["status", "reason", "updated_at"];
/** Columns of other tables that hold ids of VMs, for what their rows add to a record. */
const PARTS: readonly (readonly [table: string, column: string])[] = [
  ["leases", "vm_id"],
  ["leases", "reserved_for"],
  ["published_ports", "vm_id"],
];
/** Records that are kept at most; the ones that were read first make room. Fewer than a host has VMs would be of no use to a list, which reads them in order. */
const MOST_RECORDS = 16_384;
/** Lists that are kept at most: those of a few clients that ask again and again. */
const MOST_LISTS = 8;

export interface VmList {
  readonly vms: readonly VmRecord[];
  readonly total: number;
}

export class VmCache {
  readonly #database: DatabaseSync;
  readonly #records = new Map<number, VmRecord>();
  /** Emptied by whatever changes a record: any of them may be another list then. */
  readonly #lists = new Recent<VmList>(MOST_LISTS);
  readonly #onWrite: (id: number) => void;
  /** Gives another number whenever another connection has committed (sqlite.org/pragma.html#pragma_data_version). */
  readonly #otherWriters: StatementSync;
  #dataVersion: unknown;

  /** @param onWrite told of each VM of which something was written that effects may rely on; the change may still be rolled back */
  constructor(database: DatabaseSync, onWrite: (id: number) => void) {
    this.#database = database;
    this.#onWrite = onWrite;
    database.function("volant_shown", (id) => {
      this.#forget(Number(id));
      return null;
    });
    database.function("volant_written", (id) => {
      if (id === null) return null;
      this.#forget(Number(id));
      this.#onWrite(Number(id));
      return null;
    });
    for (const trigger of this.#triggers()) database.exec(`CREATE TEMP TRIGGER ${trigger}; END`);
    this.#otherWriters = database.prepare("PRAGMA data_version");
    this.#dataVersion = this.#readVersion();
  }

  #triggers(): string[] {
    const columns = this.#database
      .prepare("SELECT name FROM pragma_table_info('vms')")
      .all()
      .flatMap(({ name }) => (SHOWN_ONLY.includes(name) ? [] : [String(name)]));
    return [
      "vm_made AFTER INSERT ON main.vms BEGIN SELECT volant_written(new.id)",
      "vm_shown AFTER UPDATE ON main.vms BEGIN SELECT volant_shown(new.id)",
      `vm_written AFTER UPDATE OF ${columns.join(", ")} ON main.vms BEGIN SELECT volant_written(new.id)`,
      "vm_gone AFTER DELETE ON main.vms BEGIN SELECT volant_written(old.id)",
      ...PARTS.flatMap(([table, column]) => [
        `${table}_${column}_made AFTER INSERT ON main.${table} BEGIN SELECT volant_written(new.${column})`,
        `${table}_${column}_written AFTER UPDATE ON main.${table} BEGIN SELECT volant_written(old.${column}), volant_written(new.${column})`,
        `${table}_${column}_gone AFTER DELETE ON main.${table} BEGIN SELECT volant_written(old.${column})`,
      ]),
    ];
  }

  #forget(id: number): void {
    this.#records.delete(id);
    this.#lists.clear();
  }

  #readVersion(): unknown {
    return this.#otherWriters.get()?.["data_version"];
  }

  /** Forgets all where another program has written to the database. */
  refresh(): void {
    const version = this.#readVersion();
    if (version === this.#dataVersion) return;
    this.#dataVersion = version;
    this.#records.clear();
    this.#lists.clear();
  }

  /** The list that was read for this question, if nothing has been written since: the same object, then. */
  list(question: string): VmList | undefined {
    return this.#lists.get(question);
  }

  /** Keeps a list, unless it is of a transaction that may still be rolled back. */
  keepList(question: string, list: VmList): void {
    if (!this.#database.isTransaction) this.#lists.put(question, list);
  }

  get(id: number): VmRecord | undefined {
    return this.#records.get(id);
  }

  /** Keeps a record that was read, unless it is of a transaction that may still be rolled back. */
  keep(record: VmRecord): void {
    if (this.#database.isTransaction) return;
    if (this.#records.size >= MOST_RECORDS) {
      for (const first of this.#records.keys()) {
        this.#records.delete(first);
        break;
      }
    }
    this.#records.set(record.id, record);
  }
}
