/** A program in a guest over a WebSocket: for browsers, and for Node as well. `GuestStreams` of the Node part has it as streams of Node's. */
import { parseTaken, ReceiveWindow, SendWindow } from "@volant/contract/byte-window";
import { VolantError } from "@volant/contract/errors";
import {
  encodeExecFrame,
  encodeExecStart,
  EXEC_FRAME,
  execFailure,
  ExecFrameDecoder,
  parseExecError,
  parseExecExit,
  type ExecExit,
  type ExecFrame,
  type ExecStart,
  type TerminalSize,
} from "@volant/contract/exec-frames";
import type { CallOptions } from "./call-options.ts";
import { CLOSE_DONE, openSocket, sendPieces } from "./open-socket.ts";
import { OutputStream } from "./output-stream.ts";
import type { Transport } from "./transport.ts";

/** What may be on its way, in either direction. */
const WINDOW_BYTES = 1024 * 1024;
/** Of standard input, in one frame: a small part of the window, so that what waits for room waits for little. */
const INPUT_BYTES = 32 * 1024;

/** A program in a guest. Its output waits for its readers, and so does the program: read both, or `cancel()` what is not wanted. */
export interface VmProcess {
  /** Closing it is the end of the program's input, aborting it hangs up. What a program that has ended does not take is no failure. */
  readonly stdin: WritableStream<Uint8Array>;
  readonly stdout: ReadableStream<Uint8Array>;
  readonly stderr: ReadableStream<Uint8Array>;
  /**
   * How it ended, once its output is in `stdout` and `stderr`.
   *
   * Rejects with a VolantError: `not_found` when the guest has no such program or directory, `forbidden` when it is not executable,
   * `guest_unreachable` when the connection broke.
   */
  readonly exit: Promise<ExecExit>;
  /** Tells the program's terminal its new size. */
  resize(size: TerminalSize): void;
  /** Hangs up: the program gets SIGHUP, and SIGKILL if that does not end it. */
  close(): void;
}

/** The connection's two halves: frames that wait for room to be sent, and bytes that came and wait to be taken. */
class Carrier {
  readonly #socket: WebSocket;
  readonly #outgoing = new SendWindow(WINDOW_BYTES);
  readonly #incoming = new ReceiveWindow(WINDOW_BYTES);
  readonly #came: Uint8Array[] = [];
  #sending: Promise<void> = Promise.resolve();
  #hasRoom = () => {};
  #hasCome = () => {};
  #isClosed = false;

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => this.#receive(data));
    socket.addEventListener("close", () => {
      this.#isClosed = true;
      this.#hasRoom();
      this.#hasCome();
    });
  }

  #receive(data: unknown): void {
    if (typeof data === "string") {
      const taken = parseTaken(data);
      if (taken === undefined || !this.#outgoing.take(taken)) this.#socket.close();
      else this.#hasRoom();
      return;
    }
    const bytes = new Uint8Array(data as ArrayBuffer);
    if (!this.#incoming.receive(bytes.length)) this.#socket.close();
    this.#came.push(bytes);
    this.#hasCome();
  }

  /** Sends a frame after those before it, once there is room for all of it. Resolves then, or when nobody is there any more. */
  send(frame: Uint8Array): Promise<void> {
    this.#sending = this.#sending.then(async () => {
      while (!this.#isClosed && this.#outgoing.room < frame.length) {
        await new Promise<void>((resolve) => (this.#hasRoom = resolve));
      }
      this.#outgoing.send(frame.length);
      sendPieces(this.#socket, frame);
    });
    return this.#sending;
  }

  /** What comes, to the end of the connection. A piece counts as taken when the next one is asked for. */
  async *pieces(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const bytes = this.#came.shift();
      if (bytes !== undefined) {
        yield bytes;
        const told = this.#incoming.take(bytes.length);
        if (told !== undefined && this.#socket.readyState === WebSocket.OPEN) this.#socket.send(told);
      } else if (this.#isClosed) return;
      else await new Promise<void>((resolve) => (this.#hasCome = resolve));
    }
  }
}

/** Takes a frame: output to its stream, and the program's end as the result. @throws VolantError what is wrong with the program */
async function take({ kind, payload }: ExecFrame, stdout: OutputStream, stderr: OutputStream) {
  if (kind === EXEC_FRAME.stdout) await stdout.put(payload);
  if (kind === EXEC_FRAME.stderr) await stderr.put(payload);
  if (kind === EXEC_FRAME.error) throw execFailure(parseExecError(payload));
  if (kind !== EXEC_FRAME.exit) return undefined;
  const exit = parseExecExit(payload);
  if (exit === undefined) throw new VolantError("guest_unreachable", "the guest's agent sent an ending that is none");
  return exit;
}

/** @throws VolantError `not_found`, `wrong_state`, `guest_unreachable`, `too_large` */
export async function openProcess(
  transport: Transport,
  name: string,
  start: ExecStart,
  { signal }: CallOptions,
): Promise<VmProcess> {
  const first = encodeExecStart(start);
  const [stdout, stderr] = [new OutputStream(), new OutputStream()];
  let made: Carrier | undefined;
  const socket = await openSocket(transport, {
    id: "vms.exec.socket",
    name,
    what: "programs to run",
    query: { window: WINDOW_BYTES },
    signal,
    prepare: (fresh) => (made = new Carrier(fresh)),
  });
  const carrier = made as unknown as Carrier;
  void carrier.send(first);

  function leave(): void {
    socket.close(CLOSE_DONE);
    stdout.end();
    stderr.end();
  }
  async function receive(): Promise<ExecExit> {
    const decoder = new ExecFrameDecoder();
    try {
      for await (const bytes of carrier.pieces()) {
        for (const frame of decoder.feed(bytes)) {
          const exit = await take(frame, stdout, stderr);
          if (exit !== undefined) return exit;
        }
      }
    } finally {
      leave();
    }
    throw new VolantError("guest_unreachable", "the connection to the program in the guest broke");
  }
  signal?.addEventListener("abort", leave, { once: true });
  const exit = receive();
  // Whoever only reads the output is told by nobody that it did not end well; whoever asks is.
  exit.catch(() => {});
  const stdin = new WritableStream<Uint8Array>({
    async write(bytes) {
      for (let at = 0; at < bytes.length; at += INPUT_BYTES) {
        await carrier.send(encodeExecFrame(EXEC_FRAME.stdin, bytes.subarray(at, at + INPUT_BYTES)));
      }
    },
    close: () => carrier.send(encodeExecFrame(EXEC_FRAME.stdin, new Uint8Array())),
    // Half an input must not look like a whole one.
    abort: leave,
  });
  return {
    stdin,
    stdout: stdout.stream,
    stderr: stderr.stream,
    exit,
    resize: ({ cols, rows }) =>
      void carrier.send(encodeExecFrame(EXEC_FRAME.resize, new TextEncoder().encode(JSON.stringify({ cols, rows })))),
    close: leave,
  };
}
