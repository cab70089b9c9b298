/** A disk that tests hold, and how they give an engine time to go as far as it then can. */

/** Makes nothing durable while it is held. */
export class HeldDisk {
  #waiting: (() => void)[] = [];
  #isHeld = false;

  readonly sync = (): Promise<void> =>
    this.#isHeld ? new Promise((resolve) => void this.#waiting.push(resolve)) : Promise.resolve();

  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** Turns enough for an engine that does not wait to have acted. */
export async function turns(): Promise<void> {
  for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate);
}
