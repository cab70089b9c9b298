import { once } from "node:events";
import { PassThrough, Writable, type Duplex, type Readable } from "node:stream";
import { VolantError } from "@volant/contract/errors";
import {
  encodeExecFrame,
  EXEC_FRAME,
  execFailure,
  ExecFrameDecoder,
  MAX_EXEC_PAYLOAD_BYTES,
  parseExecError,
  parseExecExit,
  type ExecExit,
  type ExecFrame,
  type TerminalSize,
} from "@volant/contract/exec-frames";

/** A program in a guest. Its output waits for its readers, and so does the program: read both, or `resume()` what is not wanted. */
export class GuestProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /**
   * How it ended, once its output is in `stdout` and `stderr`.
   *
   * Rejects with a VolantError: `not_found` when the guest has no such program or directory, `forbidden` when it is not executable,
   * `guest_unreachable` when the connection broke.
   */
  readonly exit: Promise<ExecExit>;
  readonly #socket: Duplex;

  /** @param socket the stream, on which a start frame was sent */
  constructor(socket: Duplex) {
    this.#socket = socket;
    const stdout = new PassThrough();
    const stderr = new PassThrough();
    this.stdout = stdout;
    this.stderr = stderr;
    this.stdin = new Writable({
      write: (chunk: Buffer, _encoding, done) => this.#send(chunk, done),
      final: (done) => void socket.write(encodeExecFrame(EXEC_FRAME.stdin, new Uint8Array()), () => done()),
    });
    // A program that ends before its input does is no failure of the input.
    this.stdin.on("error", () => {});
    this.exit = this.#receive(stdout, stderr);
    this.exit.catch(() => {});
  }

  /** Tells the program's terminal its new size. */
  resize({ cols, rows }: TerminalSize): void {
    if (this.#socket.writable) {
      this.#socket.write(encodeExecFrame(EXEC_FRAME.resize, new TextEncoder().encode(JSON.stringify({ cols, rows }))));
    }
  }

  /** Hangs up: the program gets SIGHUP, and SIGKILL if that does not end it. */
  close(): void {
    this.#socket.destroy();
  }

  #send(chunk: Buffer, done: () => void): void {
    for (let at = 0; at < chunk.length; at += MAX_EXEC_PAYLOAD_BYTES) {
      const frame = encodeExecFrame(EXEC_FRAME.stdin, chunk.subarray(at, at + MAX_EXEC_PAYLOAD_BYTES));
      const last = at + MAX_EXEC_PAYLOAD_BYTES >= chunk.length;
      this.#socket.write(frame, last ? () => done() : undefined);
    }
    if (chunk.length === 0) done();
  }

  async #receive(stdout: PassThrough, stderr: PassThrough): Promise<ExecExit> {
    const decoder = new ExecFrameDecoder();
    try {
      for await (const bytes of this.#socket as AsyncIterable<Buffer>) {
        for (const frame of decoder.feed(bytes)) {
          const exit = await take(frame, stdout, stderr);
          if (exit !== undefined) return exit;
        }
      }
    } catch (error) {
      if (error instanceof VolantError) throw error;
    } finally {
      stdout.end();
      stderr.end();
      this.stdin.destroy();
      this.#socket.destroy();
    }
    throw new VolantError("guest_unreachable", "the connection to the program in the guest broke");
  }
}

async function take(frame: ExecFrame, stdout: PassThrough, stderr: PassThrough): Promise<ExecExit | undefined> {
  const { kind, payload } = frame;
  if (kind === EXEC_FRAME.stdout || kind === EXEC_FRAME.stderr) {
    const stream = kind === EXEC_FRAME.stdout ? stdout : stderr;
    if (stream.writable && !stream.write(payload)) await Promise.race([once(stream, "drain"), once(stream, "close")]);
    return undefined;
  }
  if (kind === EXEC_FRAME.error) throw execFailure(parseExecError(payload));
  if (kind !== EXEC_FRAME.exit) return undefined;
  const exit = parseExecExit(payload);
  if (exit === undefined) throw new VolantError("guest_unreachable", "the guest's agent sent an ending that is none");
  return exit;
}
