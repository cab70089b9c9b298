/** What may wait for the reader; whoever writes more waits himself. */
const HIGH_WATER_BYTES = 64 * 1024;

/** A stream that is written as its reader takes it. */
export class OutputStream {
  readonly stream: ReadableStream<Uint8Array>;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  #isOver = false;
  #wake = () => {};

  constructor() {
    const over = () => {
      this.#isOver = true;
      this.#wake();
    };
    this.stream = new ReadableStream<Uint8Array>(
      {
        start: (controller) => void (this.#controller = controller),
        pull: () => this.#wake(),
        cancel: over,
      },
      new ByteLengthQueuingStrategy({ highWaterMark: HIGH_WATER_BYTES }),
    );
  }

  /** Resolves when there is room for more. What comes after the end, or to a reader that does not want it, is dropped. */
  async put(bytes: Uint8Array): Promise<void> {
    const controller = this.#controller;
    if (this.#isOver || controller === undefined || bytes.length === 0) return;
    controller.enqueue(bytes);
    if ((controller.desiredSize ?? 0) > 0) return;
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  /** Nothing comes any more; what is there may still be read. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#controller?.close();
    this.#wake();
  }
}
