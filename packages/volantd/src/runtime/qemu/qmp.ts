/** A connection to one QEMU's control socket. */
import type { Socket } from "node:net";
import { connectReading } from "../../connect-reading.ts";
import { encodeQmpCommand, QmpDecoder, QmpError, type QmpMessage } from "./qmp-codec.ts";

/** The commands in use are answered within milliseconds; a QEMU that takes so long is stopped, or no longer itself. */
const COMMAND_TIMEOUT_MS = 10_000;

interface PendingCommand {
  readonly id: number;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface QmpOptions {
  /** The Unix socket's path, at most 107 bytes (unix(7)). */
  readonly path: string;
  /** Gives up connecting when it aborts, or after so long; of no effect afterwards. */
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
  readonly onEvent: (event: QmpEvent) => void;
}

export class QmpClient {
  readonly #socket: Socket;
  readonly #decoder = new QmpDecoder();
  /** Few, and for most of the time none. */
  #pending: readonly PendingCommand[] = [];
  readonly #onEvent: (event: QmpEvent) => void;
  /** Until it has come. */
  #greeting: PromiseWithResolvers<void> | undefined = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  #nextId = 1;
  #failure: QmpError | undefined;

  /** Resolves when the connection has ended, for whatever reason. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  /**
   * Connects, and resolves once QEMU takes commands, with what the first one returned, which it has at once: it goes out together with the end of the
   * greeting. QEMU talks to one client at a time: a second one waits here until the first has gone.
   *
   * @throws QmpError when there is nobody, or nobody who speaks the protocol; the signal's reason when it aborts
   */
  static async connect(
    options: QmpOptions,
    first: string,
  ): Promise<{ readonly client: QmpClient; readonly returned: unknown }> {
    options.signal.throwIfAborted();
    const client = new QmpClient(options);
    const abort = (): void => client.#fail(new QmpError("connecting to the hypervisor was given up"));
    options.signal.addEventListener("abort", abort, { once: true });
    const timer = setTimeout(abort, options.timeoutMs);
    timer.unref();
    try {
      await client.#greeting?.promise;
      client.#greeting = undefined;
      const [, returned] = await client.#executeAll(["qmp_capabilities", first]);
      return { client, returned };
    } catch (error) {
      client.close();
      options.signal.throwIfAborted();
      throw error;
    } finally {
      clearTimeout(timer);
      options.signal.removeEventListener("abort", abort);
    }
  }

  private constructor(options: QmpOptions) {
    this.#onEvent = options.onEvent;
    this.#greeting?.promise.catch(() => {});
    this.#socket = connectReading(options.path, (bytes) => {
      this.#receive(bytes);
      return true;
    });
    this.#socket.on("error", (error) => this.#fail(new QmpError(`the hypervisor's control socket: ${error.message}`)));
    this.#socket.on("close", () => {
      this.#fail(new QmpError("the hypervisor closed its control socket"));
      this.#closed.resolve();
    });
  }

  /**
   * Runs one command and gives what it returned.
   *
   * @throws QmpError when QEMU refuses it or goes away first
   */
  async execute(command: string): Promise<unknown> {
    const [returned] = await this.#executeAll([command]);
    return returned;
  }

  /** Sends commands at once, which QEMU carries out in their order, and gives what each returned. */
  async #executeAll(commands: readonly string[]): Promise<unknown[]> {
    if (this.#failure !== undefined) throw this.#failure;
    let text = "";
    const answers = commands.map((command) => {
      const id = this.#nextId;
      this.#nextId += 1;
      const { promise, resolve, reject } = Promise.withResolvers<unknown>();
      this.#pending = [...this.#pending, { id, resolve, reject }];
      text += encodeQmpCommand(id, command);
      return promise;
    });
    this.#socket.write(text);
    const timer = setTimeout(() => {
      const names = commands.join(" and ");
      this.#fail(new QmpError(`the hypervisor did not answer ${names} within ${COMMAND_TIMEOUT_MS / 1000} s`));
    }, COMMAND_TIMEOUT_MS);
    try {
      return await Promise.all(answers);
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#fail(new QmpError("the connection to the hypervisor was closed"));
  }

  #receive(chunk: Buffer): void {
    try {
      for (const message of this.#decoder.push(chunk)) this.#handle(message);
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      this.#fail(error);
    }
  }

  #handle(message: QmpMessage): void {
    if (message.kind === "greeting") return this.#greeting?.resolve();
    if (message.kind === "event") return this.#onEvent({ event: message.event, data: message.data });
    const pending = this.#pending.find(({ id }) => id === message.id);
    if (pending === undefined) return;
    this.#pending = this.#pending.filter((other) => other !== pending);
    if (message.kind === "return") pending.resolve(message.value);
    else pending.reject(new QmpError(message.description, message.errorClass));
  }

  #fail(error: QmpError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#greeting?.reject(error);
    for (const pending of this.#pending) pending.reject(error);
    this.#pending = [];
    this.#socket.destroy();
  }
}
