/**
 * Finds the beginning of a session on the stream port: all before the line `volant-stream <nonce>` is left over from sessions that died. See
 * docs/agent-protocol.md. Pure; keeps no byte, however much a guest sends.
 */

export function syncLine(nonce: string): string {
  return `volant-stream ${nonce}\n`;
}

/** Knuth–Morris–Pratt over the one pattern. */
export class SyncScanner {
  readonly #pattern: Buffer;
  readonly #fallback: number[] = [0];
  #matched = 0;

  constructor(nonce: string) {
    this.#pattern = Buffer.from(syncLine(nonce));
    for (let at = 1, length = 0; at < this.#pattern.length; at++) {
      while (length > 0 && this.#pattern[at] !== this.#pattern[length]) length = this.#fallback[length - 1] ?? 0;
      if (this.#pattern[at] === this.#pattern[length]) length++;
      this.#fallback.push(length);
    }
  }

  /** When `bytes` complete the line: how many of them belong to it or to what came before. The rest is HTTP/2. */
  feed(bytes: Buffer): number | undefined {
    for (const [at, byte] of bytes.entries()) {
      while (this.#matched > 0 && this.#pattern[this.#matched] !== byte) {
        this.#matched = this.#fallback[this.#matched - 1] ?? 0;
      }
      if (this.#pattern[this.#matched] === byte) this.#matched++;
      if (this.#matched < this.#pattern.length) continue;
      this.#matched = 0;
      return at + 1;
    }
    return undefined;
  }
}
