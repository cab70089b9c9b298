/** The pool of addresses against a model that anyone can check, on a real database. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test, { after } from "node:test";
import { VolantError } from "@volant/contract";
import fc from "fast-check";
import {
  broadcastAddress,
  formatAddress,
  isLeasable,
  parseAddress,
  parseSubnet,
  subnetSize,
  type AddressPool,
} from "../model/address.ts";
import { Leases } from "./leases.ts";
import { migrate } from "./migrations.ts";

const directory = mkdtempSync(join(tmpdir(), "leases-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const REST_MS = 1000;
let files = 0;

function open(path: string): DatabaseSync {
  const database = new DatabaseSync(path);
  // What is proven here is not what a loss of power leaves.
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON");
  migrate(database, path);
  return database;
}

function newPath(): string {
  return join(directory, `${files++}.db`);
}

function addVm(database: DatabaseSync, id: number): void {
  database
    .prepare(
      `INSERT INTO vms (id, name, plugin, runtime, spec, mac, cid, desired, generation, status, created_at, updated_at)
       VALUES (?, 'vm' || ?, '', '', '{}', ?, ?, 'running', 1, 'pending', '', '')`,
    )
    .run(id, id, `mac ${id}`, id + 2);
}

function poolOf(subnet: string, gateway: string): AddressPool {
  return { subnet: parseSubnet(subnet), gateway: parseAddress(gateway) ?? 0 };
}

/** Whether `work` was done; what it says when it was not. Either all of it has happened, or nothing. */
function attempt(database: DatabaseSync, work: () => void): string | undefined {
  database.exec("BEGIN IMMEDIATE");
  try {
    work();
    database.exec("COMMIT");
    return undefined;
  } catch (error) {
    database.exec("ROLLBACK");
    if (!(error instanceof VolantError)) throw error;
    return error.code;
  }
}

interface ModelVm {
  leased?: number | undefined;
  reserved?: number | undefined;
}

/** What the pool promises, in the plainest words. */
class Model {
  readonly vms = new Map<number, ModelVm>();
  resting = new Map<number, number>();

  holder(address: number): number | undefined {
    for (const [id, { leased, reserved }] of this.vms) if (leased === address || reserved === address) return id;
    return undefined;
  }

  #rest(address: number | undefined, now: number): void {
    if (address !== undefined && this.holder(address) === undefined) this.resting.set(address, now);
  }

  reserve(id: number, address: number | undefined, now: number): string | undefined {
    const vm = this.vms.get(id) ?? {};
    const holder = address === undefined ? undefined : this.holder(address);
    if (holder !== undefined && holder !== id) return "exists";
    const old = vm.reserved;
    vm.reserved = address;
    if (address !== undefined) this.resting.delete(address);
    this.#rest(old, now);
    return undefined;
  }

  settle(id: number, needed: boolean, pool: AddressPool, now: number): string | undefined {
    const vm = this.vms.get(id) ?? {};
    if (!needed) {
      const old = vm.leased;
      vm.leased = undefined;
      this.#rest(old, now);
      return undefined;
    }
    if (vm.reserved !== undefined && !isLeasable(pool, vm.reserved)) return "wrong_state";
    if (vm.reserved === undefined && vm.leased !== undefined && isLeasable(pool, vm.leased)) return undefined;
    if (vm.reserved !== undefined && vm.leased === vm.reserved) return undefined;
    const old = vm.leased;
    vm.leased = undefined;
    const before = new Map(this.resting);
    this.#rest(old, now);
    if (vm.reserved === undefined) {
      const found = this.#free(pool, now);
      if (found === undefined) {
        vm.leased = old;
        this.resting = before;
        return "exhausted";
      }
      vm.leased = found;
    } else vm.leased = vm.reserved;
    this.resting.delete(vm.leased);
    return undefined;
  }

  #free(pool: AddressPool, now: number): number | undefined {
    for (const [address, since] of this.resting) if (since <= now - REST_MS) this.resting.delete(address);
    for (let address = pool.subnet.network; address <= broadcastAddress(pool.subnet); address += 1) {
      const isFree = this.holder(address) === undefined && !this.resting.has(address);
      if (isLeasable(pool, address) && isFree) return address;
    }
    const rested = [...this.resting].filter(([address]) => isLeasable(pool, address));
    return rested.sort((a, b) => a[1] - b[1] || a[0] - b[0])[0]?.[0];
  }

  delete(id: number, now: number): void {
    const { leased, reserved } = this.vms.get(id) ?? {};
    this.vms.delete(id);
    this.#rest(leased, now);
    this.#rest(reserved, now);
  }

  rows(): unknown[] {
    const held = [...this.vms].flatMap(([id, { leased, reserved }]) =>
      [...new Set([leased, reserved])].flatMap((address) => {
        if (address === undefined) return [];
        const of = { vm_id: leased === address ? id : null, reserved_for: reserved === address ? id : null };
        return [{ address, ...of, released_at: null }];
      }),
    );
    const rested = [...this.resting].map(([address, at]) => ({
      address,
      vm_id: null,
      reserved_for: null,
      released_at: at,
    }));
    return [...held, ...rested].sort((a, b) => a.address - b.address);
  }
}

/** They overlap, so that a change of subnet finds addresses inside and outside; small, so that they fill up. */
const POOLS = [
  poolOf("10.0.0.0/29", "10.0.0.1"),
  poolOf("10.0.0.0/28", "10.0.0.4"),
  poolOf("10.0.0.248/29", "10.0.0.254"),
  poolOf("10.0.0.0/30", "10.0.0.2"),
  poolOf("10.0.0.0/23", "10.0.1.0"),
];
const near = fc.integer({ min: 0x0a000000, max: 0x0a000012 });
const pick = fc.nat({ max: 1000 });
const operation = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("create" as const), ip: fc.option(near, { nil: undefined }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("delete" as const), pick }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("start" as const), pick, needed: fc.boolean() }) },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant("reserve" as const), pick, ip: fc.option(near, { nil: undefined }) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 1500 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("subnet" as const), pick }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart" as const) }) },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function playOut(operations: readonly Operation[]): void {
  const path = newPath();
  let database = open(path);
  let leases = new Leases(database, REST_MS);
  const model = new Model();
  let [pool] = POOLS as [AddressPool];
  let now = 10_000;
  let lastId = 0;
  const chosen = (index: number): number | undefined => [...model.vms.keys()][index % Math.max(1, model.vms.size)];
  for (const step of operations) {
    let [expected, found]: (string | undefined)[] = [];
    if (step.do === "wait") now += step.ms;
    else if (step.do === "subnet") pool = POOLS[step.pick % POOLS.length] ?? pool;
    else if (step.do === "restart") {
      database.close();
      database = open(path);
      leases = new Leases(database, REST_MS);
    } else if (step.do === "create") {
      const id = ++lastId;
      const before = new Map(model.resting);
      model.vms.set(id, {});
      expected = model.reserve(id, step.ip, now) ?? model.settle(id, true, pool, now);
      if (expected !== undefined) {
        model.vms.delete(id);
        model.resting = before;
      }
      found = attempt(database, () => {
        addVm(database, id);
        leases.reserve(id, step.ip, now);
        leases.settle(id, { needed: true, reserved: step.ip }, pool, now);
      });
    } else {
      const id = chosen(step.pick);
      if (id === undefined) continue;
      if (step.do === "start") {
        const reserved = model.vms.get(id)?.reserved;
        expected = model.settle(id, step.needed, pool, now);
        found = attempt(database, () => leases.settle(id, { needed: step.needed, reserved }, pool, now));
      } else if (step.do === "reserve") {
        expected = model.reserve(id, step.ip, now);
        found = attempt(database, () => leases.reserve(id, step.ip, now));
      } else {
        model.delete(id, now);
        found = attempt(database, () => {
          leases.reserve(id, undefined, now);
          leases.release(id, now);
          database.prepare("DELETE FROM vms WHERE id = ?").run(id);
        });
      }
    }
    assert.equal(found, expected, `${JSON.stringify(step)} in ${formatAddress(pool.subnet.network)}`);
    const rows = database.prepare("SELECT * FROM leases ORDER BY address").all();
    assert.deepEqual(
      rows.map((row) => ({ ...row })),
      model.rows(),
      JSON.stringify(step),
    );
  }
  const counted = database.prepare("SELECT block, held FROM lease_blocks WHERE bits = 24 ORDER BY block").all();
  const real = database
    .prepare("SELECT address >> 8 AS block, count(*) AS held FROM leases GROUP BY 1 ORDER BY 1")
    .all();
  assert.deepEqual(counted, real);
  database.close();
  rmSync(path);
}

test("10,000 random operations (take, release, reserve, time, another subnet, a restart) leave what a simple model says", () => {
  let operations = 0;
  while (operations < 10_000) {
    fc.assert(
      fc.property(fc.array(operation, { minLength: 1, maxLength: 400, size: "max" }), (steps) => {
        operations += steps.length;
        playOut(steps);
      }),
      { numRuns: 20 },
    );
  }
});

/** Counts the rows that statements of this database step through. */
function counting(database: DatabaseSync, counter: { rows: number }): DatabaseSync {
  return {
    prepare(sql: string) {
      const statement = database.prepare(sql);
      return {
        run: statement.run.bind(statement),
        get: statement.get.bind(statement),
        *iterate(...parameters: number[]) {
          for (const row of statement.iterate(...parameters)) {
            counter.rows += 1;
            yield row;
          }
        },
      };
    },
  } as unknown as DatabaseSync;
}

/** Rows for all addresses of a range: they rest, and are not due for long. */
function hold(database: DatabaseSync, from: string, count: number): void {
  database.exec(
    `WITH RECURSIVE address (n) AS (SELECT ${parseAddress(from)} UNION ALL SELECT n + 1 FROM address WHERE n < ${(parseAddress(from) ?? 0) + count - 1})
     INSERT INTO leases (address, released_at) SELECT n, 10000 FROM address`,
  );
}

test("in a /8 of which 200,000 addresses are held, the lowest free one is found in at most four walks of 256 rows, wherever it is", () => {
  const database = open(newPath());
  const counter = { rows: 0 };
  const leases = new Leases(counting(database, counter), REST_MS);
  const pool = poolOf("10.0.0.0/8", "10.0.0.1");
  hold(database, "10.0.0.2", 200_000);
  const free = (address: string) => database.exec(`DELETE FROM leases WHERE address = ${parseAddress(address)}`);
  // 200,000 addresses from 10.0.0.2 on end at 10.3.13.65.
  const holes = [
    "10.3.13.65",
    "10.3.0.0",
    "10.2.255.255",
    "10.1.7.0",
    "10.0.255.254",
    "10.0.1.0",
    "10.0.0.255",
    "10.0.0.2",
  ];
  addVm(database, 1);
  assert.equal(formatAddress(leases.take(1, pool, 10_001)), "10.3.13.66");
  leases.release(1, 10_001);
  let id = 2;
  for (const hole of holes) free(hole);
  for (const hole of holes.toReversed()) {
    counter.rows = 0;
    addVm(database, id);
    assert.equal(formatAddress(leases.take(id++, pool, 10_001)), hole);
    assert.ok(counter.rows <= 4 * 256, `${counter.rows} rows were read`);
  }
  database.close();
});

test("a subnet that is full to its last address has none, wherever its ends lie in a block; what has rested longest is then taken", () => {
  const subnets: readonly [subnet: string, gateway: string][] = [
    ["10.0.0.0/30", "10.0.0.2"],
    ["10.9.8.64/26", "10.9.8.126"],
    ["10.4.0.0/24", "10.4.0.1"],
    ["10.5.0.0/23", "10.5.0.255"],
    ["10.6.0.0/16", "10.6.0.1"],
    ["10.2.0.0/15", "10.3.255.254"],
  ];
  for (const [subnet, gateway] of subnets) {
    const database = open(newPath());
    const leases = new Leases(database, REST_MS);
    const pool = poolOf(subnet, gateway);
    hold(database, formatAddress(pool.subnet.network + 1), subnetSize(pool.subnet) - 2);
    database.exec(`DELETE FROM leases WHERE address = ${pool.gateway}`);
    const last = broadcastAddress(pool.subnet) - 1;
    const oldest = last === pool.gateway ? last - 1 : last;
    database.exec(`UPDATE leases SET released_at = 9999 WHERE address = ${oldest}`);
    addVm(database, 1);
    assert.equal(leases.take(1, pool, 10_001), oldest, subnet);
    database.close();
  }
});

test("where every address is leased or reserved, there is none", () => {
  const database = open(newPath());
  const leases = new Leases(database, REST_MS);
  const pool = poolOf("10.0.0.0/29", "10.0.0.1");
  for (const id of [1, 2, 3, 4, 5, 6]) addVm(database, id);
  leases.reserve(5, 0x0a000004, 0);
  for (const id of [1, 2, 3, 4]) leases.take(id, pool, 0);
  assert.throws(() => leases.take(6, pool, 10_000), { code: "exhausted", message: /10\.0\.0\.0\/29/ });
  leases.settle(5, { needed: true, reserved: 0x0a000004 }, pool, 0);
  assert.throws(() => leases.settle(5, { needed: true, reserved: 0x0a000004 }, poolOf("10.0.1.0/24", "10.0.1.1"), 0), {
    code: "wrong_state",
    message: "its reserved address 10.0.0.4 is not one of the subnet 10.0.1.0/24",
  });
  database.close();
});
