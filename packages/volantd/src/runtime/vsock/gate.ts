/**
 * The one way to a guest's vsock device from the host. The device is served by vhost-device-vsock, of which connections are asked for on a Unix socket:
 * `CONNECT <port>`, answered by `OK <number>`.
 *
 * Some things that a host does end the device for good, until the VM is started anew (version 0.3.0, each tried): to close a connection before OK came; to ask
 * for one while the VM is paused; to close one, or to write to it, while the VM is paused. All but the last can't happen to who comes through here, and
 * nothing else opens that socket. As for the last, the link sends nothing of its own then, but a client's bytes may be under way: the device is lost, and the link
 * goes on without it. What is written before OK is lost, and neither end can be closed alone: what goes over a connection must say by itself where it ends.
 */
import { createConnection, type Socket } from "node:net";
import { VolantError } from "@volant/contract";
import type { DataTransport } from "../../guest/data-link.ts";
import type { RunState } from "./run-state.ts";

/** OK comes within milliseconds; a backend that takes so long is dead, or about to be. */
const ANSWER_TIMEOUT_MS = 2000;
/** `OK` and a number of at most ten digits. */
const MAX_ANSWER_BYTES = 32;

export interface VsockGateOptions {
  /** The backend's socket for connections. */
  readonly path: string;
  readonly run: RunState;
  /** Why the backend carries no data, for good; undefined when it may. */
  readonly trouble: () => Promise<string | undefined>;
  readonly answerTimeoutMs?: number;
}

function notReady(sentence: string): VolantError {
  return new VolantError("not_ready", sentence);
}

export class VsockGate implements DataTransport {
  readonly #options: VsockGateOptions;
  /** A connection that was asked for, and not answered yet, though whoever wanted it has gone. */
  #pending: Promise<void> | undefined;

  constructor(options: VsockGateOptions) {
    this.#options = options;
  }

  get held(): boolean {
    return this.#options.run.paused;
  }

  trouble(): Promise<string | undefined> {
    return this.#options.trouble();
  }

  whenRunning(action: () => void): void {
    this.#options.run.whenRunning(action);
  }

  async connect(port: number, signal: AbortSignal): Promise<Socket> {
    const trouble = await this.trouble();
    if (trouble !== undefined) throw notReady(trouble);
    signal.throwIfAborted();
    if (this.held) throw notReady("the VM is paused");
    if (this.#pending !== undefined) throw notReady("its vsock device does not answer");
    const asked = this.#ask(port);
    const settled = asked.then(
      () => {},
      () => {},
    );
    this.#pending = settled;
    void settled.then(() => (this.#pending = undefined));
    return await this.#answered(asked, signal);
  }

  /** Gives up after a while, or when the signal aborts; the connection then stays until it is answered, and is closed only then. */
  async #answered(asked: Promise<Socket>, signal: AbortSignal): Promise<Socket> {
    const givenUp = Promise.withResolvers<never>();
    const onAbort = () => givenUp.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const late = () => givenUp.reject(notReady("its vsock device does not answer"));
    const timer = setTimeout(late, this.#options.answerTimeoutMs ?? ANSWER_TIMEOUT_MS);
    try {
      return await Promise.race([asked, givenUp.promise]);
    } catch (error) {
      void asked.then(
        (socket) => this.whenRunning(() => socket.destroy()),
        () => {},
      );
      throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }

  #ask(port: number): Promise<Socket> {
    const { path } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    const socket = createConnection(path);
    let answer = Buffer.alloc(0);
    const onData = (bytes: Buffer) => {
      answer = Buffer.concat([answer, bytes]);
      const end = answer.indexOf("\n");
      if (end === -1 && answer.length <= MAX_ANSWER_BYTES) return;
      socket.off("data", onData).pause();
      if (/^OK \d{1,10}\n/.test(answer.toString("latin1"))) {
        if (answer.length > end + 1) socket.unshift(answer.subarray(end + 1));
        resolve(socket);
        return;
      }
      reject(notReady("its vsock device gives a wrong answer"));
      this.whenRunning(() => socket.destroy());
    };
    socket.on("data", onData);
    // Stays for the socket's whole life: an error without a listener would end the process.
    socket.on("error", (error) => reject(notReady(`its vsock device can't be reached: ${error.message}`)));
    socket.once("close", () => reject(notReady("nothing listens on vsock in the guest")));
    // In one piece: a line in two parts is dropped.
    socket.once("connect", () => socket.write(`CONNECT ${port}\n`));
    return promise;
  }
}
