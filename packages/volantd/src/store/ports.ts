import type { DatabaseSync, StatementSync } from "node:sqlite";
import { VolantError } from "@volant/contract";
import { endpointText, overlaps, type PublishedPort, type VmPort } from "../model/published-port.ts";

/** A VM's ports as one JSON value, for the columns of its row. */
export const PORTS_COLUMN = `(SELECT json_group_array(json_object(
    'name', name, 'guestPort', guest_port, 'address', host_address, 'hostPort', host_port) ORDER BY position)
  FROM published_ports WHERE vm_id = vms.id) AS ports`;

/** {@link PORTS_COLUMN} read back. */
export function parsePorts(text: string): PublishedPort[] {
  const rows = JSON.parse(text) as (Omit<PublishedPort, "name"> & { readonly name: string | null })[];
  return rows.map(({ name, ...port }) => (name === null ? port : { name, ...port }));
}

/** Ports of this host that are VMs'. Every method is part of a transaction that its caller has begun. */
export class Ports {
  readonly #sharing: StatementSync;
  readonly #insert: StatementSync;
  readonly #remove: StatementSync;
  readonly #all: StatementSync;

  constructor(database: DatabaseSync) {
    this.#sharing = database.prepare(
      `SELECT vms.id AS vm_id, vms.name AS vm, host_address, host_port, guest_port FROM published_ports
       JOIN vms ON vms.id = vm_id WHERE host_port = ?`,
    );
    this.#insert = database.prepare(
      "INSERT INTO published_ports (vm_id, position, name, guest_port, host_address, host_port) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#remove = database.prepare("DELETE FROM published_ports WHERE vm_id = ?");
    this.#all = database.prepare(
      `SELECT vm_id, guest_port, host_address, host_port FROM published_ports
       JOIN vms ON vms.id = vm_id WHERE vms.desired <> 'absent' ORDER BY vm_id, position`,
    );
  }

  /**
   * Gives a VM these ports and no others.
   *
   * @throws VolantError `in_use` when one of them is another VM's
   */
  replace(vmId: number, ports: readonly PublishedPort[]): void {
    this.#remove.run(vmId);
    for (const [position, port] of ports.entries()) {
      this.check(vmId, port);
      this.#insert.run(vmId, position, port.name ?? null, port.guestPort, port.address, port.hostPort);
    }
  }

  /** @throws VolantError `in_use` when a port is another VM's than this one's */
  check(vmId: number | undefined, port: PublishedPort): void {
    const row = this.#sharing.all(port.hostPort).find((sharing) => {
      const other = vmPort(sharing);
      return other.vmId !== vmId && overlaps(other, port);
    });
    if (row === undefined) return;
    throw new VolantError("in_use", `port ${endpointText(port)} of this host is VM "${String(row["vm"])}"'s`, {
      hint: "choose another port of the host, or leave it out for one that is free",
    });
  }

  remove(vmId: number): void {
    this.#remove.run(vmId);
  }

  /** Of all VMs but those that are being deleted. */
  all(): VmPort[] {
    return this.#all.all().map(vmPort);
  }
}

function vmPort(row: Record<string, unknown>): VmPort {
  return {
    vmId: Number(row["vm_id"]),
    guestPort: Number(row["guest_port"]),
    address: String(row["host_address"]),
    hostPort: Number(row["host_port"]),
  };
}
