/** The store of one host: SQLite through Node's own binding. */
import { chmodSync, closeSync, fdatasync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { promisify } from "node:util";
import {
  MAX_CONFIG_HISTORY,
  VolantError,
  type Manifest,
  type VmConfig,
  type VmEvent,
  type VmStatus,
} from "@volant/contract";
import type { DatabaseLock } from "@volant/host";
import type { EventRange, NumberedEvent, VmFilter } from "../engine/use-cases.ts";
import type { AddressPool } from "../model/address.ts";
import { macAddress, MAX_MAC_VM_ID } from "../model/mac.ts";
import { needsIPAllocation, needsTapDevice } from "../model/network.ts";
import type { PublishedPort, VmPort } from "../model/published-port.ts";
import { latestSpec, needsStart } from "../model/vm-config.ts";
import type { VmSpec } from "../model/vm-spec.ts";
import { ApiKeys } from "./api-keys.ts";
import { backupStream, removeUnfinishedBackups } from "./backup-file.ts";
import { databaseFault, SQLITE_BUSY, sqliteCode, translated } from "./database-fault.ts";
import { lockDatabase } from "./database-lock.ts";
import { Durability } from "./durability.ts";
import { Artifacts } from "./artifacts.ts";
import { Deployments } from "./deployments.ts";
import { DEFAULT_EVENTS_KEPT, Events, type EventsKept } from "./events.ts";
import { DEFAULT_REST_MS, Leases } from "./leases.ts";
import { migrate } from "./migrations.ts";
import { Ports, PORTS_COLUMN } from "./ports.ts";
import { configVersion, pluginRecord, vmRecord } from "./rows.ts";
import { Requests } from "./requests.ts";
import type {
  AnsweredRequest,
  ConfigChange,
  ConfigVersion,
  EndRecord,
  Intent,
  EventMarks,
  KeyedRequest,
  NewVm,
  PluginRecord,
  Store,
  StoreBackup,
  VmCounts,
  VmRecord,
} from "./store.ts";
import { SharedTransaction } from "./shared-transaction.ts";
import { Statements } from "./statements.ts";
import { VmCache, type VmList } from "./vm-cache.ts";
import { VmPositions } from "./vm-positions.ts";
import { vmQuery } from "./vm-query.ts";
import { messageOf } from "../message-of.ts";

export interface SqliteStoreOptions {
  readonly path: string;
  readonly now: () => Date;
  /** A new installation's id: eight hexadecimal digits at random. */
  readonly newInstallation: () => string;
  /** How long a released address rests. Default: 5 minutes. */
  readonly restMs?: number;
  /** Makes what was written to a file durable. Default: fdatasync(2), off this thread. */
  readonly sync?: (descriptor: number) => Promise<void>;
  /** Told when the disk fails under what was written already. */
  readonly onSyncFailure?: (error: unknown) => void;
  /** Default: 20,000 events, and 30 days. */
  readonly eventsKept?: EventsKept;
}

/**
 * How long a write waits for another program's; it blocks the thread. After a wait in vain none is spent for a while: one program must not stop all
 * else.
 */
const BUSY_MS = 100;
const IMPATIENT_MS = 1000;
/** Pages of the log after which it is written back into the database: fewer of those pauses than with SQLite's 1,000. */
const CHECKPOINT_PAGES = 4000;

/** Context ids 0 to 2 are the hypervisor, local communication and the host (vsock(7)). */
const FIRST_CID_OFFSET = 2;

/** What is read from another table than `vms` must be known to vm-cache.ts. */
const VM_COLUMNS = `vms.*, (SELECT address FROM leases WHERE vm_id = vms.id) AS address, ${PORTS_COLUMN}`;

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

function databaseHint(fault: VolantError | undefined): { readonly hint?: string } {
  return fault?.hint === undefined ? {} : { hint: fault.hint };
}

export class SqliteStore implements Store {
  readonly installation: string;
  readonly deployments: Deployments;
  readonly keys: ApiKeys;
  readonly artifacts: Artifacts;
  readonly #database: DatabaseSync;
  readonly #path: string;
  readonly #lock: DatabaseLock;
  readonly #now: () => Date;
  readonly #log: number;
  readonly #durability: Durability;
  readonly #cache: VmCache;
  readonly #positions = new VmPositions();
  readonly #shared = new SharedTransaction(
    (work) => this.#transaction(work),
    () => this.#database.isTransaction,
  );
  #backups = 0;
  #isBackingUp = false;
  #patience: NodeJS.Timeout | undefined;
  readonly #leases: Leases;
  readonly #ports: Ports;
  readonly #requests: Requests;
  readonly #events: Events;
  readonly #statements: Statements;

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
      removeUnfinishedBackups(options.path);
      const store = new SqliteStore(options, lock);
      return translated(store, (error) => store.#fault(error, options.path));
    } catch (error) {
      lock?.release();
      if (error instanceof VolantError || !(error instanceof Error) || !("code" in error)) throw error;
      throw new VolantError("not_ready", `the database ${options.path} can't be opened: ${error.message}`, {
        cause: error,
        ...databaseHint(databaseFault(error, options.path)),
      });
    }
  }

  private constructor(options: SqliteStoreOptions, lock: DatabaseLock) {
    this.#lock = lock;
    this.#path = options.path;
    this.#now = options.now;
    this.#database = new DatabaseSync(options.path, { timeout: BUSY_MS });
    this.#statements = new Statements(this.#database);
    let log: number | undefined;
    try {
      // Else SQLite writes what it needs for a moment into files in /tmp, and a volantd that is killed may leave one there.
      this.#database.exec("PRAGMA temp_store = MEMORY");
      migrate(this.#database, options.path);
      this.#database.exec(
        `PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`,
      );
      // SQLite makes the log with its first write, keeps it until the database is closed, and holds no lock on it that a second descriptor could break.
      this.#database.exec("BEGIN IMMEDIATE; COMMIT");
      log = openSync(`${options.path}-wal`, "r+");
      this.#log = log;
      this.#cache = new VmCache(this.#database, (id) => this.#positions.written(id));
      this.#leases = new Leases(this.#database, options.restMs ?? DEFAULT_REST_MS);
      this.#ports = new Ports(this.#database);
      this.#requests = new Requests(this.#database);
      const deployments = new Deployments({
        database: this.#database,
        now: options.now,
        transaction: (work) => this.#transaction(work),
        requests: this.#requests,
        vmsOf: (id) =>
          this.#sql(`SELECT ${VM_COLUMNS} FROM vms WHERE deployment_id = ? ORDER BY replica_index`)
            .all(id)
            .map(vmRecord),
      });
      this.deployments = translated(deployments, (error) => this.#fault(error, options.path));
      const keys = new ApiKeys({
        database: this.#database,
        now: options.now,
        transaction: (work) => this.#transaction(work),
      });
      this.keys = translated(keys, (error) => this.#fault(error, options.path));
      this.artifacts = translated(new Artifacts(this.#database, options.now), (error) =>
        this.#fault(error, options.path),
      );
      this.#events = new Events(this.#database, options.eventsKept ?? DEFAULT_EVENTS_KEPT);
      this.installation = this.#installationId(options.newInstallation);
      // Last: it has a timer, and nothing is to fail after it.
      const sync = options.sync ?? promisify(fdatasync);
      this.#durability = new Durability({
        position: () => this.#committed(),
        sync: () => sync(this.#log),
        rescue: () => this.#rescue(),
        ...(options.onSyncFailure === undefined ? {} : { onFailure: options.onSyncFailure }),
      });
    } catch (error) {
      this.#database.close();
      if (log !== undefined) closeSync(log);
      throw error;
    }
  }

  /** Writes the whole log back into the database, and waits for the disk. */
  #rescue(): void {
    const result = this.#database.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get();
    if (result?.["busy"] === 0) return;
    throw new VolantError("not_ready", "the database can't be made safe on its disk while another program reads it");
  }

  #fault(error: unknown, path: string): unknown {
    if (sqliteCode(error) === SQLITE_BUSY && this.#patience === undefined) {
      this.#database.exec("PRAGMA busy_timeout = 0");
      this.#patience = setTimeout(() => {
        this.#patience = undefined;
        this.#database.exec(`PRAGMA busy_timeout = ${BUSY_MS}`);
      }, IMPATIENT_MS);
      this.#patience.unref();
    }
    return databaseFault(error, path) ?? error;
  }

  settled(vmId?: number): Promise<void> {
    // Closing has made everything durable.
    if (!this.#database.isOpen) return Promise.resolve();
    if (vmId === undefined) return this.#durability.settled();
    const isDurable = (position: number) => this.#durability.covers(position);
    return this.#durability.settled(this.#positions.positionOf(vmId, () => this.#committed(), isDurable));
  }

  /** Grows with every row that is written. Between transactions, all that it counts is committed. */
  #committed(): number {
    return Number(this.#sql("SELECT total_changes() AS position").get()?.["position"]);
  }

  #sql(text: string): StatementSync {
    return this.#statements.get(text);
  }

  #transaction<T>(work: () => T): T {
    if (this.#database.isTransaction) return this.#part(work);
    // What can't be made durable is not to grow.
    if (this.#durability.failed) this.#durability.restore();
    this.#sql("BEGIN IMMEDIATE").run();
    try {
      const result = work();
      this.#sql("COMMIT").run();
      return result;
    } catch (error) {
      if (this.#database.isTransaction) this.#sql("ROLLBACK").run();
      this.#events.undone();
      throw error;
    }
  }

  /** A part of a transaction that is undone by itself, for a caller that goes on with the rest. */
  #part<T>(work: () => T): T {
    this.#sql("SAVEPOINT part").run();
    try {
      const result = work();
      this.#sql("RELEASE part").run();
      return result;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK TO part; RELEASE part");
      this.#events.undone();
      throw error;
    }
  }

  together<T>(work: () => T): T {
    return this.#transaction(work);
  }

  async shared<T>(work: () => T): Promise<T> {
    try {
      return await this.#shared.run(work);
    } catch (error) {
      throw this.#fault(error, this.#path);
    }
  }

  addEvent(event: VmEvent): number {
    const add = () => this.#events.add(event, this.#now().getTime());
    return this.#database.isTransaction ? add() : this.#transaction(add);
  }

  takeEventId(): number {
    return this.#events.takeId();
  }

  events(range: EventRange): NumberedEvent[] {
    return this.#events.read(range);
  }

  eventMarks(): EventMarks {
    return this.#events.marks();
  }

  #installationId(make: () => string): string {
    this.#sql("INSERT OR IGNORE INTO meta (key, value) VALUES ('installation', ?)").run(make());
    return String(this.#sql("SELECT value FROM meta WHERE key = 'installation'").get()?.["value"]);
  }

  createVm({ spec, tapNames, pool, ports = [], request, replica }: NewVm): VmRecord {
    return this.#transaction(() => {
      if (this.findVm(spec.name) !== undefined) {
        throw new VolantError("exists", `a VM named "${spec.name}" exists already`);
      }
      if (replica === undefined) this.deployments.checkVmName(spec.name);
      const sequence = this.#sql("SELECT seq FROM sqlite_sequence WHERE name = 'vms'").get()?.["seq"];
      const id = Number(sequence ?? 0) + 1;
      if (id > MAX_MAC_VM_ID) {
        throw new VolantError("exhausted", "this installation has used up its MAC addresses: start a new database");
      }
      const now = this.#now();
      const stamp = now.toISOString();
      if (spec.mac !== undefined) this.#checkMacFree(spec.mac);
      this.#sql(
        `INSERT INTO vms (id, name, plugin, runtime, spec, mac, cid, tap, desired, generation, status, created_at, updated_at,
           deployment_id, replica_index, replica_version)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'running', 1, 'pending', ?, ?, ?, ?, ?)`,
      ).run(
        id,
        spec.name,
        spec.plugin,
        spec.runtime,
        JSON.stringify(spec),
        spec.mac ?? macAddress(this.installation, id),
        id + FIRST_CID_OFFSET,
        tapNames === undefined ? null : this.#freeTapName(tapNames, id),
        stamp,
        stamp,
        replica?.deploymentId ?? null,
        replica?.index ?? null,
        replica?.version ?? null,
      );
      this.#addConfig(id, 1, spec.config, stamp);
      this.#leases.reserve(id, spec.reservedAddress, now.getTime());
      if (pool !== undefined) this.#settleLease(id, spec, pool, now);
      this.#ports.replace(id, ports);
      const made = this.#mustGetVm(id);
      this.#requests.remember(request, made, now.getTime());
      return made;
    });
  }

  #settleLease(id: number, spec: VmSpec, pool: AddressPool, now: Date): void {
    const need = { needed: needsIPAllocation(spec), reserved: spec.reservedAddress };
    this.#leases.settle(id, need, pool, now.getTime());
  }

  #checkMacFree(mac: string): void {
    const holder = this.#sql("SELECT name FROM vms WHERE mac = ?").get(mac)?.["name"];
    if (holder !== undefined) throw new VolantError("exists", `MAC ${mac} belongs to VM "${String(holder)}"`);
  }

  #freeTapName(names: Iterable<string>, id: number): string {
    let tried = "";
    for (const name of names) {
      tried = name;
      if (this.#sql("SELECT 1 FROM vms WHERE tap = ? AND id <> ?").get(name, id) === undefined) return name;
    }
    throw new VolantError("exists", `the tap name ${tried} belongs to another VM`, {
      hint: "give this VM one of its own with network.tap",
    });
  }

  getVm(id: number): VmRecord | undefined {
    const known = this.#cache.get(id);
    if (known !== undefined) return known;
    const row = this.#sql(`SELECT ${VM_COLUMNS} FROM vms WHERE id = ?`).get(id);
    if (row === undefined) return undefined;
    const record = vmRecord(row);
    this.#cache.keep(record);
    return record;
  }

  #mustGetVm(id: number): VmRecord {
    const vm = this.getVm(id);
    if (vm === undefined) throw new Error(`there is no VM with id ${id}`);
    return vm;
  }

  findVm(name: string): VmRecord | undefined {
    const id = this.#sql("SELECT id FROM vms WHERE name = ?").get(name)?.["id"];
    return id === undefined ? undefined : this.getVm(Number(id));
  }

  listVms(filter: VmFilter): VmList {
    this.#cache.refresh();
    const question = JSON.stringify(filter);
    const known = this.#cache.list(question);
    if (known !== undefined) return known;
    const list = this.#readVms(filter);
    this.#cache.keepList(question, list);
    return list;
  }

  #readVms(filter: VmFilter): VmList {
    const { where, parameters, orderBy, limit, offset } = vmQuery(filter);
    const rows = this.#sql(`SELECT id FROM vms ${where} ${orderBy} LIMIT ? OFFSET ?`).all(...parameters, limit, offset);
    const vms = rows.map(({ id }) => this.#mustGetVm(Number(id)));
    if (filter.limit === undefined && offset === 0) return { vms, total: vms.length };
    const count = this.#sql(`SELECT count(*) AS total FROM vms ${where}`).get(...parameters);
    return { vms, total: Number(count?.["total"]) };
  }

  vmIds(): number[] {
    this.#cache.refresh();
    return this.#sql("SELECT id FROM vms ORDER BY id")
      .all()
      .map((row) => Number(row["id"]));
  }

  vmWithAddress(address: number): number | undefined {
    return this.#leases.holder(address);
  }

  publishedPorts(): VmPort[] {
    return this.#ports.all();
  }

  checkPort(vmId: number | undefined, port: PublishedPort): void {
    this.#ports.check(vmId, port);
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

  configHistory(id: number, limit: number): ConfigVersion[] {
    return this.#sql("SELECT * FROM vm_configs WHERE vm_id = ? ORDER BY version DESC LIMIT ?")
      .all(id, limit)
      .map(configVersion);
  }

  #addConfig(id: number, version: number, config: VmConfig, stamp: string): void {
    this.#sql("INSERT INTO vm_configs (vm_id, version, updated_at, config) VALUES (?, ?, ?, ?)").run(
      id,
      version,
      stamp,
      JSON.stringify(config),
    );
    this.#sql("DELETE FROM vm_configs WHERE vm_id = ? AND version <= ?").run(id, version - MAX_CONFIG_HISTORY);
  }

  writeConfig(id: number, change: ConfigChange): VmRecord | undefined {
    return this.#transaction(() => this.#writeConfig(id, change));
  }

  #writeConfig(id: number, { basis, spec, ports }: ConfigChange): VmRecord | undefined {
    const now = this.#now();
    const stamp = now.toISOString();
    const record = this.getVm(id);
    if (record?.configVersion !== basis) return undefined;
    this.#addConfig(id, basis + 1, spec.config, stamp);
    this.#ports.replace(id, ports ?? record.ports);
    this.#leases.reserve(id, spec.reservedAddress, now.getTime());
    const text = JSON.stringify(spec);
    const waits = needsStart(record.spec, spec, record.address);
    this.#sql(
      "UPDATE vms SET config_version = ?, spec = iif(?, spec, ?), next_spec = ?, updated_at = ? WHERE id = ?",
    ).run(basis + 1, waits ? 1 : 0, text, waits ? text : null, stamp, id);
    return this.#mustGetVm(id);
  }

  updateReplica(id: number, version: number, change: ConfigChange, start: Intent): VmRecord | undefined {
    return this.#transaction(() => {
      const written = this.#writeConfig(id, change);
      if (written === undefined) return undefined;
      this.#sql("UPDATE vms SET replica_version = ? WHERE id = ?").run(version, id);
      const isDown = written.endedGeneration === written.generation;
      return written.next === undefined && !isDown ? this.#mustGetVm(id) : this.#setIntent(id, start);
    });
  }

  /** The configuration as last written is in force from now on. */
  #enterConfig(id: number, { pool, tapNames = [] }: Intent, now: Date): void {
    const record = this.#mustGetVm(id);
    const spec = latestSpec(record);
    this.#sql(
      "UPDATE vms SET spec = coalesce(next_spec, spec), next_spec = NULL, plugin = ?, runtime = ?, tap = ? WHERE id = ?",
    ).run(spec.plugin, spec.runtime, this.#tapFor(id, record.spec, spec, tapNames), id);
    if (pool !== undefined) this.#settleLease(id, spec, pool, now);
  }

  /** A tap's name stays the VM's while its mode has none, unless the user chose it and no longer does. */
  #tapFor(id: number, before: VmSpec, spec: VmSpec, names: Iterable<string>): string | null {
    const tap = this.#sql("SELECT tap FROM vms WHERE id = ?").get(id)?.["tap"];
    const kept = typeof tap === "string" && before.tap === undefined ? tap : undefined;
    if (!needsTapDevice(spec)) return kept ?? null;
    if (spec.tap !== undefined) return this.#freeTapName([spec.tap], id);
    return kept ?? this.#freeTapName(names, id);
  }

  setIntent(id: number, intent: Intent): VmRecord {
    return this.#transaction(() => this.#setIntent(id, intent));
  }

  #setIntent(id: number, { desired, start, ...rest }: Intent): VmRecord {
    const now = this.#now();
    // Whatever a user says: it is not started by itself for what was before.
    this.#sql(
      `UPDATE vms SET desired = ?, generation = generation + ?, status = iif(?, 'pending', status), reason = iif(?, NULL, reason),
         restarts = iif(?, 0, restarts), failures = 0, restart_at = NULL, updated_at = ? WHERE id = ?`,
    ).run(desired, start ? 1 : 0, start ? 1 : 0, start ? 1 : 0, start ? 1 : 0, now.toISOString(), id);
    if (start) this.#enterConfig(id, { desired, start, ...rest }, now);
    return this.#mustGetVm(id);
  }

  restartVm(id: number, generation: number, means: Pick<Intent, "pool" | "tapNames">): VmRecord | undefined {
    return this.#transaction(() => {
      const now = this.#now();
      const { changes } = this.#sql(
        `UPDATE vms SET generation = generation + 1, status = 'pending', reason = NULL, restarts = restarts + 1, restart_at = NULL, updated_at = ?
         WHERE id = ? AND generation = ? AND ended_generation = generation AND desired = 'running' AND restart_at IS NOT NULL`,
      ).run(now.toISOString(), id, generation);
      if (changes === 0) return undefined;
      this.#enterConfig(id, { desired: "running", start: true, ...means }, now);
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

  recordEnd(id: number, generation: number, { status, reason, cause, restartAtMs }: EndRecord): void {
    const restartAt = restartAtMs ?? null;
    // Only what is still wanted to run, in this generation, is started again.
    const isWanted = "desired = 'running' AND generation = ? AND ? IS NOT NULL";
    this.#sql(
      `UPDATE vms SET ended_generation = ?, ended_status = ?, ended_reason = ?, ended_cause = ?,
         failures = iif(${isWanted}, failures + 1, failures), restart_at = iif(${isWanted}, ?, NULL)
       WHERE id = ? AND ended_generation < ?`,
    ).run(
      generation,
      status,
      reason ?? null,
      cause ?? null,
      generation,
      restartAt,
      generation,
      restartAt,
      restartAt,
      id,
      generation,
    );
  }

  scheduleRestart(id: number, generation: number, restartAtMs: number): void {
    this.#sql(
      `UPDATE vms SET restart_at = ?, failures = failures + 1
       WHERE id = ? AND generation = ? AND ended_generation = generation AND desired = 'running' AND restart_at IS NULL`,
    ).run(restartAtMs, id, generation);
  }

  forgetFailures(id: number, generation: number): void {
    this.#sql("UPDATE vms SET failures = 0 WHERE id = ? AND generation = ? AND ended_generation < generation").run(
      id,
      generation,
    );
  }

  answeredRequest(scope: string, key: string): AnsweredRequest | undefined {
    return this.#requests.find(scope, key, this.#now().getTime());
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
      const nowMs = this.#now().getTime();
      this.#leases.reserve(id, undefined, nowMs);
      this.#leases.release(id, nowMs);
      this.#ports.remove(id);
      this.#sql("DELETE FROM vms WHERE id = ?").run(id);
    });
  }

  createPlugin(manifest: Manifest, enabled: boolean, request?: KeyedRequest<PluginRecord>): PluginRecord {
    const now = this.#now();
    const stamp = now.toISOString();
    const made: PluginRecord = { name: manifest.name, enabled, manifest, createdAt: stamp, updatedAt: stamp };
    return this.#transaction(() => {
      this.#insertPlugin(made);
      this.#requests.remember(request, made, now.getTime());
      return made;
    });
  }

  #insertPlugin({ name, enabled, manifest, createdAt, updatedAt }: PluginRecord): void {
    try {
      this.#sql("INSERT INTO plugins (name, enabled, manifest, created_at, updated_at) VALUES (?, ?, ?, ?, ?)").run(
        name,
        enabled ? 1 : 0,
        JSON.stringify(manifest),
        createdAt,
        updatedAt,
      );
    } catch (error) {
      if (!isUniqueViolation(error)) throw error;
      throw new VolantError("exists", `a plugin named "${name}" is installed already`, {
        hint: `volar plugins remove ${name}`,
      });
    }
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
      const users = this.#sql(
        "SELECT name FROM vms WHERE plugin = ? OR json_extract(next_spec, '$.plugin') = ? ORDER BY name LIMIT 4",
      ).all(name, name);
      if (users.length > 0) {
        const names = users.map((row) => `"${String(row["name"])}"`);
        const list = names.length > 3 ? `${names.slice(0, 3).join(", ")} and others` : names.join(", ");
        throw new VolantError("in_use", `plugin "${name}" is needed by VM ${list}`, { hint: "delete those VMs first" });
      }
      const wanting = this.#sql(
        `SELECT name FROM deployments JOIN deployment_versions USING (version)
         WHERE deployment_id = deployments.id AND json_extract(spec, '$.plugin') = ? ORDER BY name LIMIT 1`,
      ).get(name);
      if (wanting !== undefined) {
        const deployment = `"${String(wanting["name"])}"`;
        throw new VolantError("in_use", `plugin "${name}" is needed by deployment ${deployment}`, {
          hint: "delete that deployment first",
        });
      }
      return this.#sql("DELETE FROM plugins WHERE name = ?").run(name).changes > 0;
    });
  }

  filesInUse(): { url: string; checksum?: string }[] {
    const rows = this.#sql(
      `SELECT json_extract(spec, '$.initramfs.url') AS url, json_extract(spec, '$.initramfs.checksum') AS checksum FROM vms
       UNION SELECT json_extract(next_spec, '$.initramfs.url'), json_extract(next_spec, '$.initramfs.checksum') FROM vms
       UNION SELECT json_extract(spec, '$.initramfs.url'), json_extract(spec, '$.initramfs.checksum') FROM deployment_versions
       UNION SELECT json_extract(manifest, '$.initramfs.url'), json_extract(manifest, '$.initramfs.checksum') FROM plugins
       UNION SELECT source_url, checksum FROM plugin_artifacts`,
    ).all();
    return rows.flatMap(({ url, checksum }) =>
      typeof url !== "string" ? [] : [typeof checksum === "string" ? { url, checksum } : { url }],
    );
  }

  async backup(): Promise<StoreBackup> {
    if (this.#isBackingUp) throw new VolantError("in_use", "a backup is being made already");
    this.#isBackingUp = true;
    try {
      return await backupStream(this.#database, this.#path, String(this.#backups++));
    } catch (error) {
      const reason = messageOf(error);
      throw new VolantError("not_ready", `no backup can be made beside the database ${this.#path}: ${reason}`, {
        hint: "it takes as much room there as the database itself",
        cause: error,
      });
    } finally {
      this.#isBackingUp = false;
    }
  }

  close(): void {
    // Writes the log back into the database and waits for the disk.
    this.#database.close();
    clearTimeout(this.#patience);
    // Its descriptor may be in use by a sync that is under way.
    void this.#durability.close().finally(() => closeSync(this.#log));
    this.#lock.release();
  }
}
