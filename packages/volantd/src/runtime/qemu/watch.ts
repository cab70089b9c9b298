/**
 * Watches one hypervisor process until it ends: holds the connection to its control socket, and asks the kernel when that breaks. The same for a process
 * that this volantd started and for one that it found.
 */
import { setTimeout as delay } from "node:timers/promises";
import { isRunning } from "../process-table.ts";
import type { HypervisorProcess } from "../runtime.ts";
import type { ExitRecord } from "./exit-report.ts";
import type { OwnChild } from "./own-child.ts";
import type { Slots } from "../../slots.ts";
import { RunState } from "../vsock/run-state.ts";
import { QmpClient, type QmpEvent } from "./qmp.ts";
import { QmpError } from "./qmp-codec.ts";
import { orAborted } from "../../or-aborted.ts";

/** How often the kernel is asked about a process whose end nothing else would tell. */
const POLL_INTERVAL_MS = 1000;
/** After a broken connection the process is mostly gone, or about to be: the first looks are quick. */
const FIRST_POLL_MS = 5;
/** A QEMU that is alive answers at once; one that is stopped (SIGSTOP) not at all. */
const CONNECT_TIMEOUT_MS = 5000;

export interface WatchOptions {
  readonly process: HypervisorProcess;
  readonly qmpPath: string;
  /** Aborted when all watching ends, before {@link Watch.close}. */
  readonly closing: AbortSignal;
  /** Where the process is a child of this one. */
  readonly child?: OwnChild;
  /** Where many processes are found at once: connecting takes its turn, since its time-out would pass while this process is busy with the others. */
  readonly turns?: Slots;
  /** Called once, when the process has ended; not after {@link Watch.close}. */
  readonly onEnd: (record: ExitRecord) => void;
}

/** From QMP's StatusInfo (QEMU, qapi/run-state.json). */
function isPaused(status: unknown): boolean {
  return typeof status === "object" && status !== null && "running" in status && status.running === false;
}

export class Watch {
  readonly process: HypervisorProcess;
  /** Whether its processors run, as far as it has said. */
  readonly run = new RunState();
  readonly #options: WatchOptions;
  readonly #ended = Promise.withResolvers<void>();
  #client: QmpClient | undefined;
  /** Those who wait for the next connection. */
  #awaited: PromiseWithResolvers<QmpClient> | undefined;
  #hasEnded = false;
  #shutdownReason: string | undefined;

  constructor(options: WatchOptions) {
    this.process = options.process;
    this.#options = options;
    this.#ended.promise.catch(() => {});
    void this.#run();
  }

  /**
   * Resolves once the control socket answers.
   *
   * @throws QmpError when the process ends first; the signal's reason when it aborts
   */
  async answering(signal: AbortSignal): Promise<void> {
    await orAborted(this.#connected(), signal);
  }

  /** Resolves when the process has ended. Rejects when the watch is closed first. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /** Runs one QMP command, once there is a connection. @throws QmpError, or the signal's reason when it aborts */
  async execute(command: string, signal: AbortSignal): Promise<unknown> {
    const client = await orAborted(this.#connected(), signal);
    return await orAborted(client.execute(command), signal);
  }

  get isConnected(): boolean {
    return this.#client !== undefined;
  }

  /** Stops watching; the process goes on. */
  close(): void {
    this.#client?.close();
    this.#ended.reject(new Error("the runtime is closed"));
  }

  #connected(): Promise<QmpClient> {
    if (this.#client !== undefined) return Promise.resolve(this.#client);
    if (this.#hasEnded) return Promise.reject(ended());
    this.#awaited ??= Promise.withResolvers<QmpClient>();
    return this.#awaited.promise;
  }

  async #run(): Promise<void> {
    const signal = this.#options.closing;
    let pollMs = FIRST_POLL_MS;
    while (!this.#isGone()) {
      const client = await this.#connect();
      if (signal.aborted) return client?.close();
      if (client !== undefined) {
        pollMs = FIRST_POLL_MS;
        await client.closed;
        this.#client = undefined;
      }
      if (signal.aborted) return;
      if (this.#isGone()) break;
      await delay(pollMs, undefined, { ref: false });
      pollMs = Math.min(pollMs * 2, POLL_INTERVAL_MS);
      if (signal.aborted) return;
    }
    await this.#finish();
  }

  /** Whether the process is known to have ended. Who can't look, for want of a file descriptor, looks again later. */
  #isGone(): boolean {
    try {
      return !isRunning(this.process);
    } catch {
      return false;
    }
  }

  #connect(): Promise<QmpClient | undefined> {
    const { turns } = this.#options;
    return turns === undefined ? this.#connectNow() : turns.run(() => this.#connectNow());
  }

  async #connectNow(): Promise<QmpClient | undefined> {
    const { closing: signal } = this.#options;
    try {
      const onEvent = (event: QmpEvent): void => this.#note(event);
      const { client, returned } = await QmpClient.connect(
        { path: this.#options.qmpPath, signal, timeoutMs: CONNECT_TIMEOUT_MS, onEvent },
        "query-status",
      );
      this.run.set(isPaused(returned));
      this.#client = client;
      this.#awaited?.resolve(client);
      this.#awaited = undefined;
      return client;
    } catch {
      // Nobody there yet, no longer, or someone who does not speak the protocol: the caller looks whether the process lives, and tries again.
      return undefined;
    }
  }

  #note({ event, data }: QmpEvent): void {
    if (event === "STOP") this.run.set(true);
    if (event === "RESUME") this.run.set(false);
    if (event === "SHUTDOWN" && typeof data["reason"] === "string") this.#shutdownReason = data["reason"].slice(0, 64);
  }

  async #finish(): Promise<void> {
    this.run.set(false);
    const { child, process } = this.#options;
    // The last events may still lie in the socket: a process that is gone has closed it, so this comes to an end.
    if (this.#client !== undefined) await this.#client.closed;
    const end = await child?.end();
    if (this.#options.closing.aborted) return;
    this.#hasEnded = true;
    this.#awaited?.reject(ended());
    this.#options.onEnd({
      generation: process.generation,
      ...(this.#shutdownReason === undefined ? {} : { shutdownReason: this.#shutdownReason }),
      ...(end?.exitCode === undefined ? {} : { exitCode: end.exitCode }),
      ...(end?.signal === undefined ? {} : { signal: end.signal }),
    });
    this.#ended.resolve();
  }
}

function ended(): QmpError {
  return new QmpError("the hypervisor has ended");
}
