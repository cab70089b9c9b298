/**
 * A VM's serial console, for as many as want it. QEMU talks to one connection at a time, so all share one: each gets what is printed from when it came, and
 * what each types goes to the guest in the order in which it comes. Nobody holds the guest up: what is printed is read always, and whoever does not take it is cut off.
 */
import { createConnection, type Socket } from "node:net";
import { Duplex } from "node:stream";
import { VolantError } from "@volant/contract";

/** What may wait for one reader: as much as a terminal shows in minutes. */
const MAX_WAITING_BYTES = 1024 * 1024;

function connected(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path });
    // Stays for the socket's whole life, because a socket that fails without a listener would end the process.
    socket.on("error", reject);
    socket.once("close", () => reject(new Error("it was closed")));
    socket.once("connect", () => resolve(socket));
  });
}

/** One reader's and writer's end. It ends when the hypervisor does. */
class ConsoleStream extends Duplex {
  readonly #serial: Socket;
  readonly #onGone: (stream: ConsoleStream) => void;

  constructor(serial: Socket, onGone: (stream: ConsoleStream) => void) {
    super({ allowHalfOpen: true });
    this.#serial = serial;
    this.#onGone = onGone;
  }

  /** Hands over what was printed. */
  give(bytes: Buffer): void {
    if (this.destroyed || this.push(bytes) || this.readableLength <= MAX_WAITING_BYTES) return;
    this.destroy(
      new VolantError("rate_limited", "the console printed faster than this reader took it, and it was cut off"),
    );
  }

  override _read(): void {
    // What is printed comes by itself.
  }

  override _write(bytes: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#serial.destroyed) done();
    // Waits for the guest to take it: whoever types too fast waits, and nobody else.
    else this.#serial.write(bytes, () => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#onGone(this);
    done(error);
  }
}

interface Shared {
  readonly serial: Promise<Socket>;
  readonly streams: Set<ConsoleStream>;
  /** Openings under way; the connection is kept for them. */
  opening: number;
}

export class SharedSerials {
  readonly #shared = new Map<string, Shared>();

  /**
   * @param path the serial port's Unix socket
   * @returns what is printed from now on, and takes what is typed
   * @throws Error of the system when nothing listens there
   */
  async open(path: string, signal: AbortSignal): Promise<Duplex> {
    const shared = this.#shared.get(path) ?? this.#begin(path);
    shared.opening += 1;
    try {
      const serial = await shared.serial;
      signal.throwIfAborted();
      if (serial.destroyed) throw new Error("the console was closed");
      const stream = new ConsoleStream(serial, (gone) => {
        shared.streams.delete(gone);
        this.#release(path, shared);
      });
      shared.streams.add(stream);
      return stream;
    } finally {
      shared.opening -= 1;
      this.#release(path, shared);
    }
  }

  /** Closes all of them. */
  close(): void {
    for (const { streams } of this.#shared.values()) for (const stream of streams) stream.destroy();
  }

  #begin(path: string): Shared {
    const serial = connected(path);
    const shared: Shared = { serial, streams: new Set(), opening: 0 };
    this.#shared.set(path, shared);
    const forget = () => {
      if (this.#shared.get(path) === shared) this.#shared.delete(path);
    };
    serial.then((socket) => {
      socket.on("data", (bytes: Buffer) => {
        for (const stream of shared.streams) stream.give(bytes);
      });
      socket.once("close", () => {
        forget();
        for (const stream of shared.streams) if (!stream.readableEnded) stream.push(null);
      });
    }, forget);
    return shared;
  }

  #release(path: string, shared: Shared): void {
    if (shared.streams.size > 0 || shared.opening > 0) return;
    if (this.#shared.get(path) === shared) this.#shared.delete(path);
    shared.serial.then(
      (socket) => socket.destroy(),
      () => {},
    );
  }
}
