/** The store of one host: SQLite through Node's own binding. */
import { chmodSync, closeSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { VolantError, type Manifest, type VmStatus } from "@volant/contract";
import type { VmFilter } from "../engine/use-cases.ts";
import { macAddress, MAX_MAC_VM_ID } from "../model/mac.ts";
import { lockDatabase, type DatabaseLock } from "./database-lock.ts";
import { DEFAULT_REST_MS, Leases } from "./leases.ts";
import { migrate } from "./migrations.ts";
import { pluginRecord, vmRecord } from "./rows.ts";
import type { Intent, NewVm, PluginRecord, Store, VmCounts, VmRecord } from "./store.ts";
import { vmQuery } from "./vm-query.ts";

export interface SqliteStoreOptions {
  readonly path: string;
  readonly now: () => Date;
  /** A new installation's id: eight hexadecimal digits at random. */
  readonly newInstallation: () => string;
  /** How long a released address rests. Default: 5 minutes. */
  readonly restMs?: number;
}

/** Context ids 0 to 2 are the hypervisor, local communication and the host (vsock(7)). */
const FIRST_CID_OFFSET = 2;

const VM_COLUMNS = "vms.*, (SELECT address FROM leases WHERE vm_id = vms.id) AS address";

/** SQLITE_CONSTRAINT_UNIQUE and _PRIMARYKEY (sqlite.org/rescode.html). */
const UNIQUE_CODES: readonly unknown[] = [2067, 1555];

function isUniqueViolation(error: unknown): boolean {
  return UNIQUE_CODES.includes((error as { errcode?: unknown }).errcode);
}

/** Makes the file and its folder, readable by their owner only: environments in it may hold secrets. */
function prepareFile(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  closeSync(openSync(path, "a", 0o600));
  chmodSync(path, 0o600);
}

export class SqliteStore implements Store {
  readonly installation: string;
  readonly #database: DatabaseSync;
  readonly #lock: DatabaseLock;
  readonly #now: () => Date;
  readonly #leases: Leases;
  readonly #statements = new Map<string, StatementSync>();

  /**
   * Opens the database, making or migrating it as needed.
   *
   * @throws VolantError `in_use` (another volantd has it), `not_ready` (a newer schema, or no database at all)
   */
  static open(options: SqliteStoreOptions): SqliteStore {
    let lock: DatabaseLock | undefined;
    try {
      prepareFile(options.path);
      lock = lockDatabase(options.path);
      return new SqliteStore(options, lock);
    } catch (error) {
      lock?.release();
      if (error instanceof VolantError || !(error instanceof Error) || !("code" in error)) throw error;
      throw new VolantError("not_ready", `the database ${options.path} can't be opened: ${error.message}`, {
        cause: error,
      });
    }
  }

  private constructor(options: SqliteStoreOptions, lock: DatabaseLock) {
    this.#lock = lock;
    this.#now = options.now;
    this.#database = new DatabaseSync(options.path);
    try {
      migrate(this.#database, options.path);
      this.#database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON");
      this.#leases = new Leases(this.#database, options.restMs ?? DEFAULT_REST_MS);
      this.installation = this.#installationId(options.newInstallation);
    } catch (error) {
      this.#database.close();
      throw error;
    }
  }

  #sql(text: string): StatementSync {
    let statement = this.#statements.get(text);
    if (statement === undefined) {
      statement = this.#database.prepare(text);
      this.#statements.set(text, statement);
    }
    return statement;
  }

  #transaction<T>(work: () => T): T {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      this.#database.exec("COMMIT");
      return result;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }

  #installationId(make: () => string): string {
    this.#sql("INSERT OR IGNORE INTO meta (key, value) VALUES ('installation', ?)").run(make());
    return String(this.#sql("SELECT value FROM meta WHERE key = 'installation'").get()?.["value"]);
  }

  createVm({ spec, tapNames, pool }: NewVm): VmRecord {
    return this.#transaction(() => {
      if (this.findVm(spec.name) !== undefined) {
        throw new VolantError("exists", `a VM named "${spec.name}" exists already`);
      }
      const sequence = this.#sql("SELECT seq FROM sqlite_sequence WHERE name = 'vms'").get()?.["seq"];
      const id = Number(sequence ?? 0) + 1;
      if (id > MAX_MAC_VM_ID) {
        throw new VolantError("exhausted", "this installation has used up its MAC addresses: start a new database");
      }
      const now = this.#now();
      const stamp = now.toISOString();
      this.#sql(
        `INSERT INTO vms (id, name, plugin, runtime, spec, mac, cid, tap, desired, generation, status, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'running', 1, 'pending', ?, ?)`,
      ).run(
        id,
        spec.name,
        spec.plugin,
        spec.runtime,
        JSON.stringify(spec),
        macAddress(this.installation, id),
        id + FIRST_CID_OFFSET,
        tapNames === undefined ? null : this.#freeTapName(tapNames),
        stamp,
        stamp,
      );
      if (pool !== undefined) this.#leases.take(id, pool, now.getTime());
      return this.#mustGetVm(id);
    });
  }

  #freeTapName(names: Iterable<string>): string {
    let tried = "";
    for (const name of names) {
      tried = name;
      if (this.#sql("SELECT 1 FROM vms WHERE tap = ?").get(name) === undefined) return name;
    }
    throw new VolantError("exists", `the tap name ${tried} belongs to another VM`, {
      hint: "give this VM one of its own with network.tap",
    });
  }

  getVm(id: number): VmRecord | undefined {
    const row = this.#sql(`SELECT ${VM_COLUMNS} FROM vms WHERE id = ?`).get(id);
    return row === undefined ? undefined : vmRecord(row);
  }

  #mustGetVm(id: number): VmRecord {
    const vm = this.getVm(id);
    if (vm === undefined) throw new Error(`there is no VM with id ${id}`);
    return vm;
  }

  findVm(name: string): VmRecord | undefined {
    const row = this.#sql(`SELECT ${VM_COLUMNS} FROM vms WHERE name = ?`).get(name);
    return row === undefined ? undefined : vmRecord(row);
  }

  listVms(filter: VmFilter): { vms: VmRecord[]; total: number } {
    const { where, parameters, orderBy, limit, offset } = vmQuery(filter);
    const count = this.#sql(`SELECT count(*) AS total FROM vms ${where}`).get(...parameters);
    const rows = this.#sql(`SELECT ${VM_COLUMNS} FROM vms ${where} ${orderBy} LIMIT ? OFFSET ?`);
    return { vms: rows.all(...parameters, limit, offset).map(vmRecord), total: Number(count?.["total"]) };
  }

  vmIds(): number[] {
    return this.#sql("SELECT id FROM vms ORDER BY id")
      .all()
      .map((row) => Number(row["id"]));
  }

  vmWithAddress(address: number): number | undefined {
    return this.#leases.holder(address);
  }

  countVms(): VmCounts {
    const by = (column: "status" | "runtime") =>
      Object.fromEntries(
        this.#sql(`SELECT ${column} AS key, count(*) AS count FROM vms GROUP BY ${column}`)
          .all()
          .map((row) => [String(row["key"]), Number(row["count"])]),
      );
    const total = this.#sql("SELECT count(*) AS total FROM vms").get()?.["total"];
    return { total: Number(total), byStatus: by("status"), byRuntime: by("runtime") };
  }

  setIntent(id: number, { desired, start, pool }: Intent): VmRecord {
    return this.#transaction(() => {
      const now = this.#now();
      this.#sql(
        `UPDATE vms SET desired = ?, generation = generation + ?, status = iif(?, 'pending', status), reason = iif(?, NULL, reason),
           updated_at = ? WHERE id = ?`,
      ).run(desired, start ? 1 : 0, start ? 1 : 0, start ? 1 : 0, now.toISOString(), id);
      if (pool !== undefined) this.#leases.moveInto(id, pool, now.getTime());
      return this.#mustGetVm(id);
    });
  }

  recordStarted(id: number, generation: number): void {
    this.#sql("UPDATE vms SET started_generation = ? WHERE id = ? AND started_generation < ?").run(
      generation,
      id,
      generation,
    );
  }

  recordRunning(id: number, generation: number): void {
    this.#sql("UPDATE vms SET running_generation = ? WHERE id = ? AND running_generation < ?").run(
      generation,
      id,
      generation,
    );
  }

  recordEnd(id: number, generation: number, end: { status: "stopped" | "crashed"; reason: string | undefined }): void {
    this.#sql(
      "UPDATE vms SET ended_generation = ?, ended_status = ?, ended_reason = ? WHERE id = ? AND ended_generation < ?",
    ).run(generation, end.status, end.reason ?? null, id, generation);
  }

  recordStatus(id: number, status: VmStatus, reason: string | undefined): void {
    this.#sql("UPDATE vms SET status = ?, reason = ?, updated_at = ? WHERE id = ?").run(
      status,
      reason ?? null,
      this.#now().toISOString(),
      id,
    );
  }

  deleteVm(id: number): void {
    this.#transaction(() => {
      this.#leases.release(id, this.#now().getTime());
      this.#sql("DELETE FROM vms WHERE id = ?").run(id);
    });
  }

  createPlugin(manifest: Manifest, enabled: boolean): PluginRecord {
    const stamp = this.#now().toISOString();
    try {
      this.#sql("INSERT INTO plugins (name, enabled, manifest, created_at, updated_at) VALUES (?, ?, ?, ?, ?)").run(
        manifest.name,
        enabled ? 1 : 0,
        JSON.stringify(manifest),
        stamp,
        stamp,
      );
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new VolantError("exists", `a plugin named "${manifest.name}" is installed already`, {
        hint: `volar plugins remove ${manifest.name}`,
      });
    }
    return { name: manifest.name, enabled, manifest, createdAt: stamp, updatedAt: stamp };
  }

  findPlugin(name: string): PluginRecord | undefined {
    const row = this.#sql("SELECT * FROM plugins WHERE name = ?").get(name);
    return row === undefined ? undefined : pluginRecord(row);
  }

  listPlugins(): PluginRecord[] {
    return this.#sql("SELECT * FROM plugins ORDER BY name").all().map(pluginRecord);
  }

  setPluginEnabled(name: string, enabled: boolean): PluginRecord | undefined {
    const stamp = this.#now().toISOString();
    this.#sql("UPDATE plugins SET enabled = ?, updated_at = ? WHERE name = ?").run(enabled ? 1 : 0, stamp, name);
    return this.findPlugin(name);
  }

  deletePlugin(name: string): boolean {
    return this.#transaction(() => {
      const users = this.#sql("SELECT name FROM vms WHERE plugin = ? ORDER BY name LIMIT 4").all(name);
      if (users.length > 0) {
        const names = users.map((row) => `"${String(row["name"])}"`);
        const list = names.length > 3 ? `${names.slice(0, 3).join(", ")} and others` : names.join(", ");
        throw new VolantError("in_use", `plugin "${name}" is needed by VM ${list}`, { hint: "delete those VMs first" });
      }
      return this.#sql("DELETE FROM plugins WHERE name = ?").run(name).changes > 0;
    });
  }

  initramfsInUse(): { url: string; checksum?: string }[] {
    const rows = this.#sql(
      `SELECT json_extract(spec, '$.initramfs.url') AS url, json_extract(spec, '$.initramfs.checksum') AS checksum FROM vms
       UNION SELECT json_extract(manifest, '$.initramfs.url'), json_extract(manifest, '$.initramfs.checksum') FROM plugins`,
    ).all();
    return rows.flatMap(({ url, checksum }) =>
      typeof url !== "string" ? [] : [typeof checksum === "string" ? { url, checksum } : { url }],
    );
  }

  close(): void {
    this.#database.close();
    this.#lock.release();
  }
}
