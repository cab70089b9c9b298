/**
 * Watches one hypervisor process until it ends: holds the connection to its control socket, and asks the kernel when that breaks. The same for a process
 * that this volantd started and for one that it found.
 */
import type { ChildProcess } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { isRunning } from "../process-table.ts";
import type { HypervisorProcess } from "../runtime.ts";
import type { ExitRecord } from "./exit-report.ts";
import { QmpClient } from "./qmp.ts";
import { QmpError } from "./qmp-codec.ts";

/** How often the kernel is asked about a process whose end nothing else would tell. */
const POLL_INTERVAL_MS = 1000;
/** After a broken connection the process is mostly gone, or about to be: the first looks are quick. */
const FIRST_POLL_MS = 5;
/** A QEMU that is alive answers at once; one that is stopped (SIGSTOP) not at all. */
const CONNECT_TIMEOUT_MS = 5000;

export interface WatchOptions {
  readonly process: HypervisorProcess;
  readonly qmpPath: string;
  /** Where the process is a child of this one. */
  readonly child?: ChildProcess;
  /** Called once, when the process has ended; not after {@link Watch.close}. */
  readonly onEnd: (record: ExitRecord) => void;
}

/** Settles with the promise, or rejects with the signal's reason, whichever comes first; leaves no listener behind. */
async function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** Resolves when a child has been collected, now or later. */
export async function childExit(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise<void>((tell) => child.once("exit", () => tell()));
}

export class Watch {
  readonly process: HypervisorProcess;
  readonly #options: WatchOptions;
  readonly #ended = Promise.withResolvers<void>();
  readonly #closing = new AbortController();
  /** Settles with the next connection; replaced when that one breaks. */
  #connected = Promise.withResolvers<QmpClient>();
  #client: QmpClient | undefined;
  #shutdownReason: string | undefined;

  constructor(options: WatchOptions) {
    this.process = options.process;
    this.#options = options;
    this.#ended.promise.catch(() => {});
    this.#connected.promise.catch(() => {});
    void this.#run();
  }

  /**
   * Resolves once the control socket answers.
   *
   * @throws QmpError when the process ends first; the signal's reason when it aborts
   */
  async answering(signal: AbortSignal): Promise<void> {
    await orAborted(this.#connected.promise, signal);
  }

  /** Resolves when the process has ended. @throws the signal's reason when it aborts, or when the watch is closed */
  async ended(signal: AbortSignal): Promise<void> {
    await orAborted(this.#ended.promise, signal);
  }

  /** Runs one QMP command, once there is a connection. @throws QmpError, or the signal's reason when it aborts */
  async execute(command: string, signal: AbortSignal): Promise<unknown> {
    const client = await orAborted(this.#connected.promise, signal);
    return await orAborted(client.execute(command), signal);
  }

  /** Stops watching; the process goes on. */
  close(): void {
    this.#closing.abort(new Error("the runtime is closed"));
    this.#client?.close();
    this.#ended.reject(this.#closing.signal.reason);
  }

  async #run(): Promise<void> {
    const signal = this.#closing.signal;
    const { child } = this.#options;
    const gone = child === undefined ? new Promise<void>(() => {}) : childExit(child);
    let pollMs = FIRST_POLL_MS;
    while (isRunning(this.process)) {
      const client = await this.#connect();
      if (signal.aborted) return client?.close();
      if (client !== undefined) {
        pollMs = FIRST_POLL_MS;
        await Promise.race([client.closed, gone]);
      }
      if (signal.aborted) return;
      if (!isRunning(this.process)) break;
      await Promise.race([delay(pollMs, undefined, { ref: false }), gone]);
      pollMs = Math.min(pollMs * 2, POLL_INTERVAL_MS);
      if (signal.aborted) return;
    }
    await this.#finish();
  }

  async #connect(): Promise<QmpClient | undefined> {
    const giveUp = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(CONNECT_TIMEOUT_MS)]);
    try {
      const client = await QmpClient.connect({
        path: this.#options.qmpPath,
        signal: giveUp,
        onEvent: ({ event, data }) => {
          if (event === "SHUTDOWN" && typeof data["reason"] === "string")
            this.#shutdownReason = data["reason"].slice(0, 64);
        },
      });
      this.#client = client;
      this.#connected.resolve(client);
      void client.closed.then(() => {
        this.#connected = Promise.withResolvers<QmpClient>();
        this.#connected.promise.catch(() => {});
        this.#client = undefined;
      });
      return client;
    } catch {
      // Nobody there yet, no longer, or someone who does not speak the protocol: the caller looks whether the process lives, and tries again.
      return undefined;
    }
  }

  async #finish(): Promise<void> {
    const { child, process } = this.#options;
    // The last events may still lie in the socket: a process that is gone has closed it, so this comes to an end.
    if (this.#client !== undefined) await this.#client.closed;
    if (child !== undefined) await childExit(child);
    if (this.#closing.signal.aborted) return;
    this.#connected.reject(new QmpError("the hypervisor has ended"));
    this.#options.onEnd({
      generation: process.generation,
      ...(this.#shutdownReason === undefined ? {} : { shutdownReason: this.#shutdownReason }),
      ...(typeof child?.exitCode === "number" ? { exitCode: child.exitCode } : {}),
      ...(typeof child?.signalCode === "string" ? { signal: child.signalCode } : {}),
    });
    this.#ended.resolve();
  }
}
