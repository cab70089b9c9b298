/**
 * Leases and reservations of addresses. There is no row per free address, and a held one is found to be held without walking its fellows: lease_blocks counts the
 * rows of each /24 and /16, so that the lowest free address is at most four short walks away, of 256 rows each, however large the subnet is and however
 * many addresses of it are held.
 */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { VolantError } from "@volant/contract";
import { broadcastAddress, formatAddress, formatSubnet, isLeasable, type AddressPool } from "../model/address.ts";

/** How long a released address rests: long enough for peers' neighbour tables and open connections to forget its last holder. */
export const DEFAULT_REST_MS = 5 * 60_000;

/** Addresses in a /24, and /24s in a /16. */
const FAN_OUT = 256;
const FULL = { 24: FAN_OUT, 16: FAN_OUT * FAN_OUT } as const;

/** What a VM needs of the pool for its next start. */
export interface AddressNeed {
  /** False where its mode has no address of the pool's. */
  readonly needed: boolean;
  /** The address that is reserved for it. */
  readonly reserved: number | undefined;
}

/** Every method is part of a transaction that its caller has begun. */
export class Leases {
  readonly #restMs: number;
  readonly #wake: StatementSync;
  readonly #held: StatementSync;
  readonly #full: StatementSync;
  readonly #longestResting: StatementSync;
  readonly #take: StatementSync;
  readonly #takeReserved: StatementSync;
  readonly #release: StatementSync;
  readonly #reserve: StatementSync;
  readonly #unreserve: StatementSync;
  readonly #holder: StatementSync;
  readonly #leased: StatementSync;
  readonly #reserved: StatementSync;

  constructor(database: DatabaseSync, restMs: number) {
    this.#restMs = restMs;
    this.#wake = database.prepare("DELETE FROM leases WHERE released_at <= ?");
    this.#held = database.prepare("SELECT count(*) AS count FROM leases WHERE address BETWEEN ? AND ?");
    this.#full = database.prepare(
      "SELECT block AS at FROM lease_blocks WHERE bits = ? AND block BETWEEN ? AND ? AND held = ? ORDER BY block",
    );
    this.#longestResting = database.prepare(
      `SELECT address FROM leases WHERE released_at IS NOT NULL AND address BETWEEN ? AND ? AND address <> ?
       ORDER BY released_at, address LIMIT 1`,
    );
    this.#take = database.prepare(
      `INSERT INTO leases (address, vm_id) VALUES (?, ?) ON CONFLICT (address) DO UPDATE SET vm_id = excluded.vm_id, released_at = NULL
       WHERE vm_id IS NULL AND reserved_for IS NULL`,
    );
    this.#takeReserved = database.prepare(
      "UPDATE leases SET vm_id = reserved_for WHERE address = ? AND reserved_for = ?",
    );
    this.#release = database.prepare(
      "UPDATE leases SET vm_id = NULL, released_at = iif(reserved_for IS NULL, ?, NULL) WHERE vm_id = ?",
    );
    this.#reserve = database.prepare(
      `INSERT INTO leases (address, reserved_for) VALUES (?, ?)
       ON CONFLICT (address) DO UPDATE SET reserved_for = excluded.reserved_for, released_at = NULL
       WHERE reserved_for IS NULL AND (vm_id IS NULL OR vm_id = excluded.reserved_for)`,
    );
    this.#unreserve = database.prepare(
      "UPDATE leases SET reserved_for = NULL, released_at = iif(vm_id IS NULL, ?, NULL) WHERE reserved_for = ?",
    );
    this.#holder = database.prepare(
      "SELECT id, name FROM leases JOIN vms ON id = coalesce(vm_id, reserved_for) WHERE address = ?",
    );
    this.#leased = database.prepare("SELECT address FROM leases WHERE vm_id = ?");
    this.#reserved = database.prepare("SELECT address FROM leases WHERE reserved_for = ?");
  }

  /**
   * Leases the lowest free address; where every one is held, the one that has rested longest.
   *
   * @throws VolantError `exhausted` when all are leased or reserved
   */
  take(vmId: number, pool: AddressPool, nowMs: number): number {
    this.#wake.run(nowMs - this.#restMs);
    const address = this.#lowestFree(pool) ?? this.#longestRested(pool);
    if (address === undefined) {
      throw new VolantError("exhausted", `no free address is left in ${formatSubnet(pool.subnet)}`, {
        hint: "delete a VM, or set a larger network up",
      });
    }
    if (this.#take.run(address, vmId).changes !== 1) throw new Error(`address ${address} is held already`);
    return address;
  }

  /** The numerically lowest address that may be leased and has no row. */
  #lowestFree({ subnet, gateway }: AddressPool): number | undefined {
    const last = broadcastAddress(subnet) - 1;
    const found = this.#firstGap(subnet.network + 1, last);
    return found === gateway ? this.#firstGap(gateway + 1, last) : found;
  }

  #firstGap(from: number, last: number): number | undefined {
    if (from > last) return undefined;
    const blockOf = (address: number, bits: 16 | 24) => Math.floor(address / 2 ** (32 - bits));
    const inBlock = (block: number) => Math.min(last, block * FAN_OUT + FAN_OUT - 1);
    const [block, lastBlock] = [blockOf(from, 24), blockOf(last, 24)];
    const near = this.#firstFree(from, inBlock(block));
    if (near !== undefined) return near;
    const [wide, lastWide] = [blockOf(from, 16), blockOf(last, 16)];
    const free = this.#firstNotFull(24, block + 1, Math.min(lastBlock, wide * FAN_OUT + FAN_OUT - 1));
    const freeWide = free === undefined ? this.#firstNotFull(16, wide + 1, lastWide) : undefined;
    const next =
      freeWide === undefined
        ? free
        : this.#firstNotFull(24, freeWide * FAN_OUT, Math.min(lastBlock, freeWide * FAN_OUT + FAN_OUT - 1));
    // The last block of the subnet counts as not full, since nobody holds its broadcast address.
    if (next === undefined) return undefined;
    return this.#firstFree(next * FAN_OUT, inBlock(next));
  }

  /** The first address from `from` to `to` that nobody has: by halves, since counting rows is far cheaper than to bring them here. */
  #firstFree(from: number, to: number): number | undefined {
    let [free, end] = [from, to + 1];
    while (free < end) {
      const middle = Math.floor((free + end) / 2);
      const isFull = Number(this.#held.get(free, middle)?.["count"]) === middle - free + 1;
      if (isFull) free = middle + 1;
      else end = middle;
    }
    return free > to ? undefined : free;
  }

  #firstNotFull(bits: 16 | 24, from: number, to: number): number | undefined {
    return firstMissing(this.#full.iterate(bits, from, to, FULL[bits]), from, to);
  }

  #longestRested({ subnet, gateway }: AddressPool): number | undefined {
    const row = this.#longestResting.get(subnet.network + 1, broadcastAddress(subnet) - 1, gateway);
    return row === undefined ? undefined : Number(row["address"]);
  }

  /** Id of the VM that has this address or for which it is reserved. */
  holder(address: number): number | undefined {
    const id = this.#holder.get(address)?.["id"];
    return id === undefined ? undefined : Number(id);
  }

  /**
   * Keeps an address for a VM from now on, in place of the one that was kept for it until now; undefined keeps none. What it has leased stays leased.
   * One that rests may be asked for by name.
   *
   * @throws VolantError `exists`, naming the VM that has it
   */
  reserve(vmId: number, address: number | undefined, nowMs: number): void {
    const row = this.#reserved.get(vmId);
    if (address !== undefined && row !== undefined && Number(row["address"]) === address) return;
    this.#unreserve.run(nowMs, vmId);
    if (address === undefined || this.#reserve.run(address, vmId).changes === 1) return;
    const holder = String(this.#holder.get(address)?.["name"]);
    throw new VolantError("exists", `address ${formatAddress(address)} belongs to VM "${holder}"`);
  }

  /**
   * Gives a VM what it needs for a start, and takes back what it does not: its reserved address if it has one, else the one it has if the pool still holds
   * that, else the lowest free one.
   *
   * @throws VolantError `exhausted`; `wrong_state` when the pool does not hold the reserved address (any more)
   */
  settle(vmId: number, { needed, reserved }: AddressNeed, pool: AddressPool, nowMs: number): void {
    const row = this.#leased.get(vmId);
    const leased = row === undefined ? undefined : Number(row["address"]);
    if (!needed) this.release(vmId, nowMs);
    else if (reserved === undefined) {
      if (leased !== undefined && isLeasable(pool, leased)) return;
      this.release(vmId, nowMs);
      this.take(vmId, pool, nowMs);
    } else {
      if (!isLeasable(pool, reserved)) throw outside(reserved, pool);
      if (leased === reserved) return;
      this.release(vmId, nowMs);
      if (this.#takeReserved.run(reserved, vmId).changes !== 1) throw new Error(`VM ${vmId} has no such reservation`);
    }
  }

  /** Lets the VM's address rest, if it has one; one that is reserved for it stays its own. */
  release(vmId: number, nowMs: number): void {
    this.#release.run(nowMs, vmId);
  }
}

/** The first number from `from` to `to` that is not among the rows, which come in ascending order and lie in that range. */
function firstMissing(rows: Iterable<Record<string, unknown>>, from: number, to: number): number | undefined {
  let candidate = from;
  for (const row of rows) {
    if (Number(row["at"]) > candidate) break;
    candidate += 1;
  }
  return candidate > to ? undefined : candidate;
}

function outside(address: number, pool: AddressPool): VolantError {
  const [text, subnet] = [formatAddress(address), formatSubnet(pool.subnet)];
  const why = address === pool.gateway ? "is this host's own on the bridge now" : `is not one of the subnet ${subnet}`;
  return new VolantError("wrong_state", `its reserved address ${text} ${why}`, {
    hint: "give it another, or none, with: volar vms config set <name> --ip <address or none>",
  });
}
