/** Whether a VM's processors run. While they stand still, its vsock device must not be touched: see gate.ts. */
export class RunState {
  readonly #waiting: (() => void)[] = [];
  #paused = false;

  get paused(): boolean {
    return this.#paused;
  }

  /** Notes a change. What waited for the VM to run is done when it does. */
  set(paused: boolean): void {
    this.#paused = paused;
    while (!this.#paused) {
      const action = this.#waiting.shift();
      if (action === undefined) return;
      action();
    }
  }

  /** Does something now, or as soon as the VM runs again; a VM that has ended counts as running. In the order of the calls. */
  whenRunning(action: () => void): void {
    if (this.#paused) this.#waiting.push(action);
    else action();
  }
}
