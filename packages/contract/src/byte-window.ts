/**
 * Flow control of a byte stream over WebSockets, which have none that a page could use: what a browser has received it has taken, whether its reader has or
 * not. Each end counts what its reader took and tells the other end, and sends no more than a window beyond what it was told. Pure, the same for both ends.
 */

/** The least and the most that a client may ask for: any frame of exec-frames.ts fits into it, and what both ends may have to hold is bounded. */
export const [MIN_WINDOW_BYTES, MAX_WINDOW_BYTES] = [128 * 1024, 16 * 1024 * 1024];

/** The sender's half. */
export class SendWindow {
  readonly #bytes: number;
  #sent = 0;
  #taken = 0;

  /** @param bytes that may be sent beyond what was taken */
  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  /** Bytes that may be sent now. */
  get room(): number {
    return this.#taken + this.#bytes - this.#sent;
  }

  /** Counts what is sent. */
  send(bytes: number): void {
    this.#sent += bytes;
  }

  /**
   * The other end says what it has taken, all in all.
   *
   * @returns false when it can't be so: the other end speaks another protocol
   */
  take(total: number): boolean {
    if (total < this.#taken || total > this.#sent) return false;
    this.#taken = total;
    return true;
  }
}

/** The receiver's half. */
export class ReceiveWindow {
  readonly #bytes: number;
  #received = 0;
  #taken = 0;
  #told = 0;

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  /** Counts what came. @returns false when it is more than the window allows */
  receive(bytes: number): boolean {
    this.#received += bytes;
    return this.#received - this.#taken <= this.#bytes;
  }

  /** Counts what the reader took. @returns what to tell the other end, now and then: a quarter of the window at a time */
  take(bytes: number): string | undefined {
    this.#taken += bytes;
    if (this.#taken - this.#told < this.#bytes / 4) return undefined;
    this.#told = this.#taken;
    return JSON.stringify({ taken: this.#taken });
  }
}

/** The count in a text message, `{"taken":<bytes>}`; undefined when it is none. */
export function parseTaken(text: string): number | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const taken = typeof value === "object" && value !== null && "taken" in value ? value.taken : undefined;
    return Number.isSafeInteger(taken) ? (taken as number) : undefined;
  } catch {
    return undefined;
  }
}
