/** How far the log of commits must be durable for what was written of a VM to be so. */
const SWEEP_ABOVE = 1024;

export class VmPositions {
  /** Written in a transaction that may not have ended when that was told. */
  readonly #fresh = new Set<number>();
  readonly #positions = new Map<number, number>();

  written(vmId: number): void {
    this.#fresh.add(vmId);
  }

  /**
   * @param committed how far the log goes now; to be asked for outside of transactions only @param isDurable whether it is durable up to a position
   */
  positionOf(vmId: number, committed: () => number, isDurable: (position: number) => boolean): number {
    if (this.#fresh.size > 0) {
      const position = committed();
      for (const id of this.#fresh) this.#positions.set(id, position);
      this.#fresh.clear();
    }
    if (this.#positions.size > SWEEP_ABOVE) {
      for (const [id, position] of this.#positions) if (isDurable(position)) this.#positions.delete(id);
    }
    // What is not known here was written before this log was begun, or is durable.
    return this.#positions.get(vmId) ?? 0;
  }
}
