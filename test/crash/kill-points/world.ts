/** What there is of VMs, read from the kernel, the files and the database, and never from volantd: one line for each thing, without what differs from run to run. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { ip, ipJson } from "../../namespace.ts";
import { vmEntries } from "../../vm/house.ts";
import type { StandInHouse } from "../stand-in.ts";

export interface Row {
  readonly id: number;
  readonly name: string;
  readonly desired: "running" | "stopped" | "absent";
  readonly status: string;
  readonly reason: string | undefined;
  readonly generation: number;
  readonly started: number;
  readonly running: number;
  readonly ended: number;
  readonly configVersion: number;
  readonly hasNext: boolean;
}

/** A line of what there is, and the VM that it is of, where that can be told. */
interface Thing {
  readonly text: string;
  readonly vmId: number | undefined;
}

const LISTEN = "0A";

function rowsOf(database: DatabaseSync): Row[] {
  const rows = database.prepare(
    `SELECT id, name, desired, status, reason, generation, started_generation AS started, running_generation AS running, ended_generation AS ended,
       config_version AS configVersion, next_spec IS NOT NULL AS hasNext FROM vms ORDER BY id`,
  );
  return rows.all().map(
    (row) =>
      ({
        ...row,
        reason: row["reason"] ?? undefined,
        hasNext: row["hasNext"] === 1,
      }) as unknown as Row,
  );
}

/** How a row reads among the things. */
export function rowText({
  desired,
  status,
  generation,
  started,
  running,
  ended,
}: Omit<Row, "id" | "name" | "reason" | "configVersion" | "hasNext">): string {
  return `row: wanted ${desired}, ${status}; generations ${generation}, started ${started}, running ${running}, ended ${ended}`;
}

/** How a deployment's row reads among the things. */
export function deploymentText(
  wanted: number,
  version: number,
  rolledOut: number | undefined,
  versions: number,
): string {
  return `deployment: ${wanted} replicas of version ${version}, rolled out ${rolledOut ?? "none"}; versions ${versions}`;
}

/** A deployment, as far as it says what was asked for. */
export interface DeploymentRow {
  readonly replicas: number;
  readonly version: number;
  readonly rolledOut: number | undefined;
  readonly versions: number;
  readonly isDeleting: boolean;
}

function deploymentsIn(database: DatabaseSync): DeploymentRow[] {
  const rows = database.prepare(
    `SELECT replicas, version, rolled_out, deleting, (SELECT count(*) FROM deployment_versions WHERE deployment_id = deployments.id) AS versions FROM deployments`,
  );
  return rows.all().map((row) => ({
    replicas: Number(row["replicas"]),
    version: Number(row["version"]),
    rolledOut: row["rolled_out"] === null ? undefined : Number(row["rolled_out"]),
    versions: Number(row["versions"]),
    isDeleting: row["deleting"] === 1,
  }));
}

/** The only one that there is. */
export function readDeployment(at: StandInHouse): DeploymentRow | undefined {
  return readDatabase(at, deploymentsIn)[0];
}

export interface PluginRow {
  readonly name: string;
  readonly isEnabled: boolean;
}

/** The one that the house comes with. */
const HOUSE_PLUGIN = "probe";

function pluginsIn(database: DatabaseSync): PluginRow[] {
  const rows = database.prepare("SELECT name, enabled FROM plugins WHERE name <> ?").all(HOUSE_PLUGIN);
  return rows.map(({ name, enabled }) => ({ name: String(name), isEnabled: enabled === 1 }));
}

/** How a plugin's row reads among the things. */
export function pluginText(name: string, isEnabled: boolean): string {
  return `plugin ${name}, ${isEnabled ? "enabled" : "disabled"}`;
}

/** The only one besides the house's. */
export function readPlugin(at: StandInHouse): PluginRow | undefined {
  return readDatabase(at, pluginsIn)[0];
}

/** An event that is kept: what happened, and to whom. */
export interface KeptEvent {
  readonly id: number;
  readonly text: string;
}

/** Those above an id, in order. */
export function readEvents(at: StandInHouse, after: number): KeptEvent[] {
  return readDatabase(at, (database) =>
    database
      .prepare("SELECT id, type, name FROM events WHERE id > ? ORDER BY id")
      .all(after)
      .map(({ id, type, name }) => ({ id: Number(id), text: `${String(type)} ${String(name)}` })),
  );
}

/** Takes away events with numbers that no mark says were given out, which no volantd gets past. For a volantd that is dead, and has left out the mark. */
export function forgetStrayEvents({ house }: StandInHouse): void {
  const database = new DatabaseSync(house.environment["VOLANT_DB_PATH"] ?? "");
  try {
    database.exec(
      "DELETE FROM events WHERE id > (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'events_reserved')",
    );
  } finally {
    database.close();
  }
}

function inDatabase(database: DatabaseSync): Thing[] {
  const things = (query: string, text: (row: Record<string, unknown>) => string): Thing[] =>
    database
      .prepare(query)
      .all()
      .map((row) => ({ text: text(row), vmId: Number(row["vm_id"]) }));
  return [
    ...rowsOf(database).map((row) => ({ text: rowText(row), vmId: row.id })),
    ...things("SELECT vm_id FROM leases WHERE vm_id IS NOT NULL", () => "lease"),
    ...things("SELECT reserved_for AS vm_id FROM leases WHERE reserved_for IS NOT NULL", () => "reserved address"),
    ...things("SELECT vm_id, host_port FROM published_ports", ({ host_port: port }) => `port ${Number(port)} recorded`),
    ...things("SELECT vm_id, count(*) AS n FROM vm_configs GROUP BY vm_id", ({ n }) => `configurations: ${Number(n)}`),
    ...things(
      "SELECT id AS vm_id, restarts FROM vms WHERE restarts > 0",
      ({ restarts }) => `restarts: ${Number(restarts)}`,
    ),
    ...things(
      "SELECT id AS vm_id, failures FROM vms WHERE failures > 0",
      ({ failures }) => `failures: ${Number(failures)}`,
    ),
    ...pluginsIn(database).map(({ name, isEnabled }) => ({ text: pluginText(name, isEnabled), vmId: undefined })),
    ...things(
      "SELECT id AS vm_id, replica_version AS n FROM vms WHERE replica_version IS NOT NULL",
      ({ n }) => `replica of version ${Number(n)}`,
    ),
    ...deploymentsIn(database).map(({ replicas, version, rolledOut, versions, isDeleting }) => ({
      text: `${deploymentText(replicas, version, rolledOut, versions)}${isDeleting ? ", on its way out" : ""}`,
      vmId: undefined,
    })),
  ];
}

const idIn = (text: string | undefined, pattern: RegExp): number | undefined => {
  const found = pattern.exec(text ?? "")?.[1];
  return found === undefined ? undefined : Number(found);
};

function inKernel(installation: string): Thing[] {
  const mark = new RegExp(`^volant:${installation}:(\\d+)`);
  const taps = ipJson("link", "show").flatMap((link): Thing[] => {
    const name = String(link["ifname"]);
    const vmId = idIn(link["ifalias"] as string | undefined, mark);
    if (vmId === undefined && !name.startsWith("vttap-")) return [];
    return [
      { text: `tap${vmId === undefined ? " without a mark" : ""} on ${String(link["master"] ?? "nothing")}`, vmId },
    ];
  });
  const neighbours = ip("neigh", "show", "nud", "permanent", "dev", "vbr0")
    .split("\n")
    .filter((line) => line !== "")
    .map((line): Thing => ({ text: "neighbour", vmId: macId(line) }));
  return [...taps, ...neighbours, ...policyEntries(installation)];
}

/** The last three bytes of a MAC of ours are the VM's id. */
function macId(line: string): number | undefined {
  const bytes = /lladdr (?:[0-9a-f]{2}:){3}([0-9a-f:]{8})/.exec(line)?.[1];
  return bytes === undefined ? undefined : Number.parseInt(bytes.replaceAll(":", ""), 16);
}

/** Each VM's elements in the table of policies, as one line. */
function policyEntries(installation: string): Thing[] {
  let text: string;
  try {
    text = execFileSync("nft", ["list", "table", "bridge", "volant"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
  } catch {
    // There is no such table before the first VM.
    return [];
  }
  const counts = new Map<number, number>();
  for (const [, id] of text.matchAll(
    new RegExp(`(?:comment "volant:${installation}:|counter vm_${installation}_)(\\d+)`, "g"),
  )) {
    counts.set(Number(id), (counts.get(Number(id)) ?? 0) + 1);
  }
  return [...counts].map(([vmId, count]) => ({ text: `entry of ${count} elements`, vmId }));
}

const PROCESS = "process";
const BACKEND = "backend";

function inProcesses(installation: string): Thing[] {
  // The mark of what serves a vsock device is the name of its group.
  const mark = new RegExp(`(groups=|guest=)?volant:${installation}:(\\d+):(\\d+)`);
  return readdirSync("/proc").flatMap((pid): Thing[] => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const found = mark.exec(readFileSync(`/proc/${pid}/cmdline`, "utf8"));
      if (found === null) return [];
      const what = found[1] === "groups=" ? BACKEND : PROCESS;
      return [{ text: `${what} of generation ${found[3]}`, vmId: Number(found[2]) }];
    } catch {
      return [];
    }
  });
}

/** A workload's log bears the VM's name, a console's its id. */
function inFiles(environment: NodeJS.ProcessEnv, rows: readonly Row[]): Thing[] {
  const owner = (name: string) =>
    idIn(name, /^vm-(\d+)\./) ?? rows.find((row) => name.startsWith(`${row.name}.log`))?.id;
  const folders = vmEntries(environment["VOLANT_RUNTIME_DIR"]).map((name) => ({
    text: "folder",
    vmId: Number(name),
  }));
  const logs = vmEntries(environment["VOLANT_LOG_DIR"]).map((name) => ({ text: "log", vmId: owner(name) }));
  const passing = readdirSync(environment["TMPDIR"] ?? "").map(() => ({ text: "temporary file", vmId: undefined }));
  return [...folders, ...logs, ...passing];
}

/** Ports of this host that are listened on (proc_net_tcp(5)). */
function listening(): Thing[] {
  const lines = readFileSync("/proc/net/tcp", "utf8").trim().split("\n").slice(1);
  return lines.flatMap((line): Thing[] => {
    const [, local = "", , state] = line.trim().split(/\s+/);
    const port = Number.parseInt(local.split(":")[1] ?? "", 16);
    return state === LISTEN && port !== 7777 ? [{ text: `port ${port} listened on`, vmId: undefined }] : [];
  });
}

/** A database that nobody has open is read as its next opener would find it. */
export function readDatabase<T>({ house }: StandInHouse, read: (database: DatabaseSync) => T): T {
  const database = new DatabaseSync(house.environment["VOLANT_DB_PATH"] ?? "", { readOnly: true });
  try {
    return read(database);
  } finally {
    database.close();
  }
}

export function readRow(at: StandInHouse, name: string): Row | undefined {
  return readDatabase(at, rowsOf).find((row) => row.name === name);
}

/** All that there is, but for the VMs with these ids; in order. */
export function lookAround(at: StandInHouse, others: ReadonlySet<number>): string[] {
  const { installation, house } = at;
  const things = [
    ...readDatabase(at, inDatabase),
    ...inKernel(installation),
    ...inProcesses(installation),
    ...inFiles(house.environment, readDatabase(at, rowsOf)),
    ...listening(),
  ];
  return things.flatMap(({ text, vmId }) => (vmId !== undefined && others.has(vmId) ? [] : [text])).sort();
}

/** How often each run of a VM, `<id>:<generation>`, was started, by the hypervisors' own account. */
export function startsOf({ startsPath, installation }: StandInHouse): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const [, run = ""] of readFileSync(startsPath, "utf8").matchAll(
    new RegExp(`^volant:${installation}:(\\d+:\\d+) `, "gm"),
  )) {
    counts.set(run, (counts.get(run) ?? 0) + 1);
  }
  return counts;
}

/** VMs that have more than one process, a line each. */
export function crowded({ installation }: StandInHouse): string[] {
  const counts = new Map<number | undefined, number>();
  for (const { text, vmId } of inProcesses(installation))
    if (text.startsWith(PROCESS)) counts.set(vmId, (counts.get(vmId) ?? 0) + 1);
  return [...counts].filter(([, count]) => count > 1).map(([vmId, count]) => `VM ${vmId} has ${count} processes`);
}
