/**
 * Receives multicast messages. The reader pulls: while it is busy, messages wait in the kernel's buffer, whose size is the
 * only bound, and what does not fit there is reported as an overrun. Waiting takes no thread: the socket is one more
 * descriptor of the event loop, and reads never wait.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { decodeMessages, type NetlinkMessage } from "../codec/message.ts";
import { errnoError } from "../errors.ts";
import { type Libc, libc, type ReadableWatch } from "./libc.ts";
import { NETLINK_ROUTE, openNetlinkSocket, receiveNow, SOL_NETLINK } from "./socket.ts";

const NETLINK_ADD_MEMBERSHIP = 1;
const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_RCVBUFFORCE = 33;
const EAGAIN = 11;
const EINTR = 4;
const ENOBUFS = 105;

/** Longer than any message that a kernel multicasts; a longer one would be cut, and counts as an overrun. */
const BUFFER_BYTES = 64 * 1024;
/** After so many datagrams without a pause the event loop gets its turn. */
const DATAGRAMS_PER_TURN = 64;

export type Received = readonly NetlinkMessage[] | "overrun" | "closed";

export class Listener {
  readonly #libc: Libc;
  readonly #buffer = Buffer.alloc(BUFFER_BYTES);
  #fd: number;
  #datagrams = 0;
  #watch: ReadableWatch | undefined;
  #wake: (() => void) | undefined;

  /** Opens the socket and joins the groups; nothing that happens after this is missed. */
  constructor(groups: readonly number[], receiveBufferBytes: number, protocol: number = NETLINK_ROUTE) {
    const c = libc();
    const fd = openNetlinkSocket(c, protocol);
    this.#libc = c;
    this.#fd = fd;
    // Without CAP_NET_ADMIN the buffer is bounded by net.core.rmem_max.
    if (c.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, receiveBufferBytes) < 0) {
      c.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, receiveBufferBytes);
    }
    for (const group of groups) {
      const joined = c.setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
      if (joined < 0) {
        this.close();
        throw errnoError(-joined, "subscribe", `multicast group ${group}`);
      }
    }
  }

  get closed(): boolean {
    return this.#fd === -1;
  }

  /** The messages of the next datagram. They share this listener's memory until the next call. */
  async next(): Promise<Received> {
    let overrun = false;
    for (;;) {
      if (this.closed) return "closed";
      this.#datagrams += 1;
      if (this.#datagrams % DATAGRAMS_PER_TURN === 0) {
        await nextTurn();
        continue;
      }
      const length = receiveNow(this.#libc, this.#fd, this.#buffer);
      // After an overrun the kernel drops further messages without another word until the queue has been emptied: so
      // empty it, before the reader is told to read the tables again.
      if (length > this.#buffer.length || length === -ENOBUFS) overrun = true;
      else if (length === -EAGAIN && overrun) return "overrun";
      else if (length === -EAGAIN) await this.#readable();
      else if (length < 0 && length !== -EINTR) throw errnoError(-length, "receive events");
      else if (length > 0 && !overrun) return decodeMessages(this.#buffer.subarray(0, length));
    }
  }

  /** Ends a wait at once, and the subscription with it. */
  close(): void {
    if (this.closed) return;
    this.#watch?.close();
    this.#libc.close(this.#fd);
    this.#fd = -1;
    this.#wake?.();
  }

  #readable(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#watch?.close();
        this.#watch = undefined;
        this.#wake = undefined;
        resolve();
      };
      this.#wake = done;
      this.#watch = this.#libc.onceReadable(this.#fd, done);
    });
  }
}

/** What a listener receives, until the signal aborts, which closes it. Messages share the listener's memory until the next step. */
export async function* receiveUntil(
  listener: Listener,
  signal: AbortSignal,
): AsyncGenerator<Exclude<Received, "closed">, void, undefined> {
  const stop = () => listener.close();
  if (signal.aborted) stop();
  signal.addEventListener("abort", stop, { once: true });
  try {
    for (;;) {
      const received = await listener.next();
      if (received === "closed") return;
      yield received;
    }
  } finally {
    signal.removeEventListener("abort", stop);
    stop();
  }
}
