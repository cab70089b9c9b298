/**
 * What goes wrong when one of the store's writes is left out: a scenario, and how it then says that it did not come out as it must. The writes are those that the
 * scenarios are seen to make; one that is new has no place here, and test/crash/kill-points.test.ts says so.
 */

export interface Loss {
  /** How the statement begins, up to where no other one is the same. */
  readonly write: string;
  readonly scenario: string;
  /** What the failure says. */
  readonly says: RegExp;
}

export const LOSSES: readonly Loss[] = [
  { write: "INSERT INTO vms ", scenario: "create", says: /refused: 500/ },
  { write: "INSERT INTO vm_configs ", scenario: "create", says: /it is \["entry/ },
  { write: "INSERT INTO leases (address, vm_id)", scenario: "create", says: /refused: 500/ },
  {
    write: "INSERT INTO leases (address, reserved_for)",
    scenario: "create with an address of its own",
    says: /refused: 4/,
  },
  {
    write: "UPDATE leases SET vm_id = reserved_for",
    scenario: "create with an address of its own",
    says: /refused: 500/,
  },
  { write: "UPDATE leases SET vm_id = NULL", scenario: "restart that takes the network away", says: /"lease"/ },
  { write: "UPDATE leases SET reserved_for = NULL", scenario: "create with an address of its own", says: /no answer/ },
  { write: "INSERT INTO published_ports", scenario: "create with mode vsock and a published port", says: /it is / },
  {
    write: "DELETE FROM published_ports",
    scenario: "delete of a VM with a published port, by force",
    says: /no answer/,
  },
  { write: "UPDATE vms SET desired", scenario: "stop", says: /refused: 409/ },
  {
    write: "UPDATE vms SET spec = coalesce(next_spec",
    scenario: "restart that takes the network away",
    says: /tap on vbr0/,
  },
  { write: "UPDATE vms SET config_version", scenario: "restart that takes the network away", says: /tap on vbr0/ },
  { write: "UPDATE vms SET started_generation", scenario: "create", says: /started 0/ },
  { write: "UPDATE vms SET running_generation", scenario: "create", says: /starting/ },
  { write: "UPDATE vms SET ended_generation", scenario: "a crash", says: /ended 0/ },
  { write: "UPDATE vms SET status", scenario: "create", says: /pending/ },
  { write: "DELETE FROM vms ", scenario: "delete", says: /no answer/ },
  {
    write: "UPDATE vms SET generation = generation + 1",
    scenario: "a crash, and a restart by policy",
    says: /crashed; generations 1/,
  },
  { write: "UPDATE vms SET restart_at", scenario: "a crashed VM is given a policy", says: /crashed; generations 1/ },
  { write: "UPDATE vms SET failures = 0", scenario: "a crash that is forgotten", says: /"failures: 1"/ },
  { write: "INSERT INTO plugins ", scenario: "a plugin is installed", says: /the world is .*it is \[\]/ },
  { write: "UPDATE plugins SET enabled", scenario: "a plugin is disabled", says: /it is \["plugin other, enabled"\]/ },
  { write: "DELETE FROM plugins ", scenario: "a plugin is removed", says: /refused: 404/ },
  { write: "UPDATE vms SET replica_version", scenario: "a roll-out", says: /replica of version 1/ },
  { write: "INSERT OR REPLACE INTO requests", scenario: "create with a key, and once more", says: /refused: 409/ },
  { write: "INSERT INTO events ", scenario: "create", says: /VM_CREATED a: 0 times/ },
  // Otherwise the next volantd gives out the same numbers again.
  {
    write: "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT",
    scenario: "adoption after a crash in the meantime",
    says: /VM_CRASHED a: 0 times|wanted running, running/,
  },
  { write: "INSERT INTO deployments ", scenario: "a deployment is made", says: /refused: 500/ },
  { write: "INSERT INTO deployment_versions ", scenario: "a deployment is made", says: /refused: 500/ },
  {
    write: "UPDATE deployments SET replicas",
    scenario: "a deployment is given one more",
    says: /deployment: 1 replicas/,
  },
  { write: "UPDATE deployments SET version", scenario: "a roll-out", says: /of version 1/ },
  { write: "UPDATE deployments SET failure", scenario: "a deployment is made", says: /rolled out none/ },
  { write: "UPDATE deployments SET deleting", scenario: "a deployment is deleted", says: /no answer/ },
  { write: "DELETE FROM deployments ", scenario: "a deployment is deleted", says: /no answer/ },
];

/** The first ones keep tables small: what they remove has served its time. The last is made at an installation's first start, and there is no VM then. */
const OTHERS = [
  "DELETE FROM events WHERE id <= ?",
  "DELETE FROM requests WHERE NOT ",
  "DELETE FROM deployment_versions ",
  "DELETE FROM leases WHERE released_at <= ?",
  "DELETE FROM vm_configs WHERE vm_id = ? AND version <= ?",
  "INSERT OR IGNORE INTO meta ",
];

/** Of the statements that were seen, those that have no place; and places whose statement was not seen. */
export function strayWrites(seen: ReadonlySet<string>): { readonly unknown: string[]; readonly unseen: string[] } {
  const known = [...LOSSES.map(({ write }) => write), ...OTHERS];
  return {
    unknown: [...seen].filter((write) => !known.some((beginning) => write.startsWith(beginning))),
    unseen: known.filter((beginning) => ![...seen].some((write) => write.startsWith(beginning))),
  };
}
