import type { DatabaseSync, StatementSync } from "node:sqlite";
import { VolantError } from "@volant/contract";
import { broadcastAddress, formatSubnet, isLeasable, lowestFree, type AddressPool } from "../model/address.ts";

/** How long a released address rests: long enough for peers' neighbour tables and open connections to forget its last holder. */
export const DEFAULT_REST_MS = 5 * 60_000;

/** Leases of addresses. Every method is part of a transaction that its caller has begun. */
export class Leases {
  readonly #restMs: number;
  readonly #wake: StatementSync;
  readonly #held: StatementSync;
  readonly #longestResting: StatementSync;
  readonly #take: StatementSync;
  readonly #release: StatementSync;
  readonly #holder: StatementSync;
  readonly #of: StatementSync;

  constructor(database: DatabaseSync, restMs: number) {
    this.#restMs = restMs;
    this.#wake = database.prepare("DELETE FROM leases WHERE vm_id IS NULL AND released_at <= ?");
    this.#held = database.prepare("SELECT address FROM leases WHERE address BETWEEN ? AND ? ORDER BY address");
    this.#longestResting = database.prepare(
      "SELECT address FROM leases WHERE vm_id IS NULL AND address BETWEEN ? AND ? AND address <> ? ORDER BY released_at, address LIMIT 1",
    );
    this.#take = database.prepare(
      "INSERT INTO leases (address, vm_id) VALUES (?, ?) ON CONFLICT (address) DO UPDATE SET vm_id = excluded.vm_id, released_at = NULL WHERE vm_id IS NULL",
    );
    this.#release = database.prepare("UPDATE leases SET vm_id = NULL, released_at = ? WHERE vm_id = ?");
    this.#holder = database.prepare("SELECT vm_id FROM leases WHERE address = ?");
    this.#of = database.prepare("SELECT address FROM leases WHERE vm_id = ?");
  }

  /**
   * Leases the lowest free address; where every one is held, the one that has rested longest.
   *
   * @throws VolantError `exhausted` when all are leased
   */
  take(vmId: number, pool: AddressPool, nowMs: number): number {
    this.#wake.run(nowMs - this.#restMs);
    const first = pool.subnet.network + 1;
    const last = broadcastAddress(pool.subnet) - 1;
    const address = lowestFree(pool, this.#heldBetween(first, last)) ?? this.#longestRested(first, last, pool.gateway);
    if (address === undefined) {
      throw new VolantError("exhausted", `no free address is left in ${formatSubnet(pool.subnet)}`, {
        hint: "delete a VM, or set a larger network up",
      });
    }
    if (this.#take.run(address, vmId).changes !== 1) throw new Error(`address ${address} is leased already`);
    return address;
  }

  *#heldBetween(first: number, last: number): Generator<number> {
    for (const row of this.#held.iterate(first, last)) yield Number(row["address"]);
  }

  #longestRested(first: number, last: number, gateway: number): number | undefined {
    const row = this.#longestResting.get(first, last, gateway);
    return row === undefined ? undefined : Number(row["address"]);
  }

  /** Id of the VM that has this address. */
  holder(address: number): number | undefined {
    const id = this.#holder.get(address)?.["vm_id"];
    return id === undefined || id === null ? undefined : Number(id);
  }

  /** Exchanges a lease that the pool does not hold (any more) for one that it does. */
  moveInto(vmId: number, pool: AddressPool, nowMs: number): void {
    const row = this.#of.get(vmId);
    if (row !== undefined && isLeasable(pool, Number(row["address"]))) return;
    this.release(vmId, nowMs);
    this.take(vmId, pool, nowMs);
  }

  /** Lets the VM's address rest, if it has one. */
  release(vmId: number, nowMs: number): void {
    this.#release.run(nowMs, vmId);
  }
}
