import type { DatabaseSync } from "node:sqlite";
import { VolantError } from "@volant/contract";

/**
 * One entry for each version of the schema, run in order. An entry that was released is never changed.
 *
 * Uniqueness and what belongs together are the schema's to enforce: two writers, a bug or a crash can't hand one address out twice.
 */
const MIGRATIONS: readonly string[] = [
  `CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

   CREATE TABLE plugins (
     name TEXT PRIMARY KEY,
     enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
     manifest TEXT NOT NULL CHECK (json_valid(manifest)),
     created_at TEXT NOT NULL,
     updated_at TEXT NOT NULL
   ) STRICT;

   CREATE TABLE vms (
     id INTEGER PRIMARY KEY AUTOINCREMENT,
     name TEXT NOT NULL UNIQUE,
     plugin TEXT NOT NULL,
     runtime TEXT NOT NULL,
     spec TEXT NOT NULL CHECK (json_valid(spec)),
     mac TEXT NOT NULL UNIQUE,
     cid INTEGER NOT NULL UNIQUE CHECK (cid >= 3),
     tap TEXT UNIQUE,
     desired TEXT NOT NULL CHECK (desired IN ('running', 'stopped', 'absent')),
     generation INTEGER NOT NULL CHECK (generation >= 1),
     started_generation INTEGER NOT NULL DEFAULT 0 CHECK (started_generation <= generation),
     running_generation INTEGER NOT NULL DEFAULT 0 CHECK (running_generation <= generation),
     ended_generation INTEGER NOT NULL DEFAULT 0 CHECK (ended_generation <= generation),
     ended_status TEXT CHECK (ended_status IN ('stopped', 'crashed')),
     ended_reason TEXT,
     status TEXT NOT NULL CHECK (status IN ('pending', 'starting', 'running', 'stopped', 'crashed')),
     reason TEXT,
     created_at TEXT NOT NULL,
     updated_at TEXT NOT NULL
   ) STRICT;
   CREATE INDEX vms_by_plugin ON vms (plugin);
   CREATE INDEX vms_by_status ON vms (status);

   -- A released address keeps its row while it rests.
   CREATE TABLE leases (
     address INTEGER PRIMARY KEY CHECK (address BETWEEN 0 AND 4294967295),
     vm_id INTEGER UNIQUE REFERENCES vms (id),
     released_at INTEGER,
     CHECK ((vm_id IS NULL) <> (released_at IS NULL))
   ) STRICT;`,
  `-- How many rows of leases lie in each /24 and /16, kept by triggers: what finds a free address among many held ones.
   CREATE TABLE lease_blocks (
     bits INTEGER NOT NULL CHECK (bits IN (16, 24)),
     block INTEGER NOT NULL,
     held INTEGER NOT NULL CHECK (held >= 1),
     PRIMARY KEY (bits, block)
   ) STRICT, WITHOUT ROWID;

   -- A reserved address is one VM's, whether that has leased it or not.
   CREATE TABLE new_leases (
     address INTEGER PRIMARY KEY CHECK (address BETWEEN 0 AND 4294967295),
     vm_id INTEGER UNIQUE REFERENCES vms (id),
     reserved_for INTEGER UNIQUE REFERENCES vms (id),
     released_at INTEGER,
     CHECK (vm_id IS NULL OR reserved_for IS NULL OR vm_id = reserved_for),
     CHECK ((released_at IS NULL) = (vm_id IS NOT NULL OR reserved_for IS NOT NULL))
   ) STRICT;
   CREATE TRIGGER lease_held AFTER INSERT ON new_leases BEGIN
     INSERT INTO lease_blocks (bits, block, held) VALUES (24, new.address >> 8, 1), (16, new.address >> 16, 1)
       ON CONFLICT (bits, block) DO UPDATE SET held = held + 1;
   END;
   CREATE TRIGGER lease_free AFTER DELETE ON new_leases BEGIN
     DELETE FROM lease_blocks WHERE held = 1 AND (bits, block) IN (VALUES (24, old.address >> 8), (16, old.address >> 16));
     UPDATE lease_blocks SET held = held - 1 WHERE held > 1 AND (bits, block) IN (VALUES (24, old.address >> 8), (16, old.address >> 16));
   END;
   INSERT INTO new_leases (address, vm_id, released_at) SELECT address, vm_id, released_at FROM leases;
   DROP TABLE leases;
   ALTER TABLE new_leases RENAME TO leases;
   CREATE INDEX leases_resting ON leases (released_at, address) WHERE released_at IS NOT NULL;

   ALTER TABLE vms ADD COLUMN config_version INTEGER NOT NULL DEFAULT 1 CHECK (config_version >= 1);
   -- What the VM is to be from its next start on, where that differs from what is in force.
   ALTER TABLE vms ADD COLUMN next_spec TEXT CHECK (json_valid(next_spec));
   CREATE TABLE vm_configs (
     id INTEGER PRIMARY KEY AUTOINCREMENT,
     vm_id INTEGER NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
     version INTEGER NOT NULL CHECK (version >= 1),
     updated_at TEXT NOT NULL,
     config TEXT NOT NULL CHECK (json_valid(config)),
     UNIQUE (vm_id, version)
   ) STRICT;
   -- What a request gave beside its config is part of the configuration from now on. RFC 7396 merges: a null removes.
   INSERT INTO vm_configs (vm_id, version, updated_at, config)
     SELECT id, 1, created_at, json_patch(coalesce(json_extract(spec, '$.config'), '{}'), json_object(
       'plugin', iif(json_extract(spec, '$.config.manifest') IS NULL, plugin, NULL),
       'runtime', runtime,
       'kernel_cmdline', nullif(json_extract(spec, '$.kernelCmdline'), ''),
       'resources', json_object('cpu_cores', json_extract(spec, '$.cpuCores'), 'memory_mb', json_extract(spec, '$.memoryMib')),
       'api', iif(json_extract(spec, '$.apiHost') = '' AND json_extract(spec, '$.apiPort') = '', NULL,
         json_object('host', json_extract(spec, '$.apiHost'), 'port', json_extract(spec, '$.apiPort')))
     )) FROM vms;
   UPDATE vms SET spec = json_set(spec, '$.config', json((SELECT config FROM vm_configs WHERE vm_id = vms.id)));`,

  `-- Addresses in one canonical form. That 0.0.0.0 and :: have every address of their family is checked where rows are written.
   CREATE TABLE published_ports (
     host_port INTEGER NOT NULL CHECK (host_port BETWEEN 1 AND 65535),
     host_address TEXT NOT NULL,
     vm_id INTEGER NOT NULL REFERENCES vms (id),
     position INTEGER NOT NULL,
     name TEXT,
     guest_port INTEGER NOT NULL CHECK (guest_port BETWEEN 1 AND 65535),
     PRIMARY KEY (host_port, host_address)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX published_ports_by_vm ON published_ports (vm_id);`,

  `-- Restarts by policy: what ended the last run, how often it was started again, and when it will be (milliseconds since the epoch).
   ALTER TABLE vms ADD COLUMN ended_cause TEXT;
   ALTER TABLE vms ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0 CHECK (restarts >= 0);
   ALTER TABLE vms ADD COLUMN failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0);
   ALTER TABLE vms ADD COLUMN restart_at INTEGER;

   -- Requests with an Idempotency-Key, and what was answered.
   CREATE TABLE requests (
     scope TEXT NOT NULL,
     key TEXT NOT NULL,
     fingerprint TEXT NOT NULL,
     answer TEXT NOT NULL CHECK (json_valid(answer)),
     created_at INTEGER NOT NULL,
     PRIMARY KEY (scope, key)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX requests_by_age ON requests (created_at);`,
  `CREATE TABLE deployments (
     id INTEGER PRIMARY KEY AUTOINCREMENT,
     name TEXT NOT NULL UNIQUE,
     replicas INTEGER NOT NULL CHECK (replicas >= 0),
     version INTEGER NOT NULL CHECK (version >= 1),
     rolled_out INTEGER CHECK (rolled_out >= 1),
     max_unavailable INTEGER NOT NULL CHECK (max_unavailable >= 1),
     ready_timeout_ms INTEGER NOT NULL CHECK (ready_timeout_ms >= 1),
     min_ready_ms INTEGER NOT NULL CHECK (min_ready_ms >= 0),
     paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
     failure TEXT,
     deleting INTEGER NOT NULL DEFAULT 0 CHECK (deleting IN (0, 1)),
     created_at TEXT NOT NULL,
     updated_at TEXT NOT NULL
   ) STRICT;
   CREATE TABLE deployment_versions (
     id INTEGER PRIMARY KEY AUTOINCREMENT,
     deployment_id INTEGER NOT NULL REFERENCES deployments (id) ON DELETE CASCADE,
     version INTEGER NOT NULL CHECK (version >= 1),
     updated_at TEXT NOT NULL,
     spec TEXT NOT NULL CHECK (json_valid(spec)),
     UNIQUE (deployment_id, version)
   ) STRICT;
   ALTER TABLE vms ADD COLUMN deployment_id INTEGER REFERENCES deployments (id);
   ALTER TABLE vms ADD COLUMN replica_index INTEGER CHECK (replica_index >= 1);
   ALTER TABLE vms ADD COLUMN replica_version INTEGER CHECK (replica_version >= 1);
   CREATE UNIQUE INDEX vms_by_replica ON vms (deployment_id, replica_index) WHERE deployment_id IS NOT NULL;`,
  `-- What happened to VMs. Ids and how much is kept are the business of store/events.ts. Not bound to vms: events outlive their VM.
   CREATE TABLE events (
     id INTEGER PRIMARY KEY,
     name TEXT NOT NULL,
     type TEXT NOT NULL,
     -- Milliseconds since 1970, by the clock as it was.
     at INTEGER NOT NULL,
     event TEXT NOT NULL CHECK (json_valid(event))
   ) STRICT;
   CREATE INDEX events_by_name ON events (name, id);`,
  `-- Of a key only its SHA-256 is kept.
   CREATE TABLE api_keys (
     id INTEGER PRIMARY KEY AUTOINCREMENT,
     name TEXT NOT NULL UNIQUE,
     scope TEXT NOT NULL CHECK (scope IN ('read', 'operate', 'admin')),
     digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
     created_at TEXT NOT NULL,
     last_used_at TEXT
   ) STRICT;`,
  `CREATE TABLE plugin_artifacts (
     plugin TEXT NOT NULL REFERENCES plugins (name) ON DELETE CASCADE,
     version TEXT NOT NULL,
     name TEXT NOT NULL,
     kind TEXT NOT NULL,
     source_url TEXT NOT NULL,
     checksum TEXT NOT NULL,
     format TEXT NOT NULL,
     size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
     created_at TEXT NOT NULL,
     updated_at TEXT NOT NULL,
     PRIMARY KEY (plugin, version, name)
   ) STRICT, WITHOUT ROWID;`,
];

export const SCHEMA_VERSION = MIGRATIONS.length;

/** The version of the schema that a database has; 0 for a new file. */
export function schemaVersion(database: DatabaseSync): number {
  return Number(database.prepare("PRAGMA user_version").get()?.["user_version"]);
}

/**
 * Brings the schema up to date, each version in a transaction of its own.
 *
 * @throws VolantError `not_ready` when the database is of a newer version, or not ours; it is left as it is
 */
export function migrate(database: DatabaseSync, path: string): void {
  const found = schemaVersion(database);
  if (found > SCHEMA_VERSION) {
    throw new VolantError(
      "not_ready",
      `the database ${path} has schema version ${found}, and this volantd knows up to ${SCHEMA_VERSION}: a newer volantd made it`,
      { hint: "run that newer version, or name another database with VOLANT_DB_PATH" },
    );
  }
  if (found === 0 && database.prepare("SELECT 1 FROM sqlite_schema LIMIT 1").get() !== undefined) {
    throw new VolantError(
      "not_ready",
      `the database ${path} is another program's, or Volant v1's, and is left as it is`,
      {
        hint: "name another file with VOLANT_DB_PATH, or move this one away",
      },
    );
  }
  for (const [index, script] of MIGRATIONS.entries()) {
    if (index < found) continue;
    database.exec(`BEGIN IMMEDIATE; ${script} PRAGMA user_version = ${index + 1}; COMMIT`);
  }
}
