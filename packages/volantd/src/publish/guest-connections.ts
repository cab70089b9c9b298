/** Connections from outside into guests: each is carried over one stream of its guest's agent. */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { joinStreams } from "../join-streams.ts";

/** A connection to a port of a guest. Rejects when there is none. */
export type DialGuest = (vmId: number, guestPort: number, signal: AbortSignal) => Promise<Duplex>;

/** Of the streams that a guest's link has, what is left is for exec, forward and the proxy: whoever reaches a published port can't shut those out. */
export const MAX_CONNECTIONS = 256;

export class GuestConnections {
  readonly #dial: DialGuest;
  readonly #limit: number;
  /** How many there are, by VM. */
  readonly #counts = new Map<number, number>();

  /** @param limit connections of one VM at a time; the next one is reset */
  constructor(dial: DialGuest, limit = MAX_CONNECTIONS) {
    this.#dial = dial;
    this.#limit = limit;
  }

  /** Carries one connection. Where the guest does not take it, it is reset at once: a client learns in a round trip that nobody is there. */
  async serve(
    socket: Socket,
    { vmId, guestPort }: { readonly vmId: number; readonly guestPort: number },
  ): Promise<void> {
    const count = this.#counts.get(vmId) ?? 0;
    if (count >= this.#limit) {
      socket.resetAndDestroy();
      return;
    }
    this.#counts.set(vmId, count + 1);
    const gone = new AbortController();
    socket.once("close", () => {
      gone.abort();
      const left = (this.#counts.get(vmId) ?? 1) - 1;
      if (left === 0) this.#counts.delete(vmId);
      else this.#counts.set(vmId, left);
    });
    try {
      const stream = await this.#dial(vmId, guestPort, gone.signal);
      if (socket.destroyed) stream.destroy(new Error("the client is gone"));
      else joinStreams(socket, stream);
    } catch {
      // Nothing listens there, or nobody answers: the client is told as TCP tells it.
      socket.resetAndDestroy();
    }
  }
}
