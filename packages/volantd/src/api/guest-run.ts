/**
 * A program in a guest, run to its end for one request: what the exec stream carries, gathered and bounded. The guest is not trusted: whatever it sends, no
 * more than what was asked for is kept, and it takes no longer than was allowed.
 */
import { once } from "node:events";
import type { Duplex } from "node:stream";
import {
  DEFAULT_RUN_OUTPUT_BYTES,
  DEFAULT_RUN_TIMEOUT_MS,
  encodeExecFrame,
  encodeExecStart,
  EXEC_FRAME,
  execFailure,
  ExecFrameDecoder,
  MAX_EXEC_PAYLOAD_BYTES,
  parseExecError,
  parseExecExit,
  VolantError,
  type ExecExit,
  type ExecFrame,
  type RunRequest,
  type RunResult,
} from "@volant/contract";
import type { ConsoleLogUseCases, ReachUseCases } from "../engine/use-cases.ts";
import type { Handlers } from "./handler.ts";

/** The beginning of an output stream. */
class Beginning {
  readonly #limit: number;
  readonly #parts: Uint8Array[] = [];
  #bytes = 0;
  /** There was more. */
  isCut = false;

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(bytes: Uint8Array): void {
    const room = this.#limit - this.#bytes;
    if (bytes.length > room) this.isCut = true;
    if (room <= 0) return;
    // A copy: the decoder's frames are views of larger buffers, which would be kept whole.
    const kept = bytes.slice(0, room);
    this.#parts.push(kept);
    this.#bytes += kept.length;
  }

  get text(): string {
    return Buffer.concat(this.#parts).toString("utf8");
  }
}

async function sendInput(stream: Duplex, text: string): Promise<void> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length && stream.writable; at += MAX_EXEC_PAYLOAD_BYTES) {
    const frame = encodeExecFrame(EXEC_FRAME.stdin, bytes.subarray(at, at + MAX_EXEC_PAYLOAD_BYTES));
    if (!stream.write(frame)) await Promise.race([once(stream, "drain"), once(stream, "close")]);
  }
  if (stream.writable) stream.write(encodeExecFrame(EXEC_FRAME.stdin, new Uint8Array()));
}

/** The program's end, if this frame is it. @throws VolantError what the agent says is wrong with the program */
function endOf({ kind, payload }: ExecFrame): ExecExit | undefined {
  if (kind === EXEC_FRAME.error) throw execFailure(parseExecError(payload));
  if (kind !== EXEC_FRAME.exit) return undefined;
  const exit = parseExecExit(payload);
  if (exit === undefined) throw new VolantError("guest_unreachable", "the guest's agent sent an ending that is none");
  return exit;
}

/**
 * Runs a program on an exec stream that nothing was sent on, and closes it: a program that is still there then is ended.
 *
 * @throws VolantError `not_found`, `forbidden` (it can't be run), `too_large`, `guest_unreachable`
 */
export async function runToEnd(stream: Duplex, request: RunRequest): Promise<RunResult> {
  const { command, env, cwd, stdin = "" } = request;
  const limit = request.max_output_bytes ?? DEFAULT_RUN_OUTPUT_BYTES;
  const [stdout, stderr] = [new Beginning(limit), new Beginning(limit)];
  let isLate = false;
  const clock = setTimeout(() => {
    isLate = true;
    stream.destroy();
  }, request.timeout_ms ?? DEFAULT_RUN_TIMEOUT_MS);
  const result = (exit: ExecExit | undefined): RunResult => ({
    ...(exit === undefined ? {} : "code" in exit ? { exit_code: exit.code } : { signal: exit.signal }),
    timed_out: exit === undefined,
    stdout: stdout.text,
    stderr: stderr.text,
    truncated: stdout.isCut || stderr.isCut,
  });
  // Whatever fails is seen as the end of the stream.
  stream.on("error", () => {});
  try {
    stream.write(encodeExecStart({ argv: command, env, cwd }));
    // What a program does not take is no failure, and neither is a stream that ends meanwhile: its reader below sees that.
    sendInput(stream, stdin).catch(() => {});
    const decoder = new ExecFrameDecoder();
    for await (const bytes of stream as AsyncIterable<Buffer>) {
      for (const frame of decoder.feed(bytes)) {
        if (frame.kind === EXEC_FRAME.stdout) stdout.add(frame.payload);
        if (frame.kind === EXEC_FRAME.stderr) stderr.add(frame.payload);
        const exit = endOf(frame);
        if (exit !== undefined) return result(exit);
      }
    }
  } catch (error) {
    if (error instanceof VolantError) throw error;
  } finally {
    clearTimeout(clock);
    stream.destroy();
  }
  if (isLate) return result(undefined);
  throw new VolantError("guest_unreachable", "the connection to the program in the guest broke");
}

/** The routes `vms.run` and `vms.console.tail`. */
export function guestHandlers(
  reach: ReachUseCases,
  consoles: ConsoleLogUseCases,
): Handlers<"vms.console.tail" | "vms.run"> {
  return {
    "vms.run": async ({ params, body, signal }) => {
      const stream = await reach.exec(params.name, signal);
      const hangUp = () => void stream.destroy();
      signal.addEventListener("abort", hangUp, { once: true });
      try {
        return { body: await runToEnd(stream, body) };
      } finally {
        signal.removeEventListener("abort", hangUp);
      }
    },
    "vms.console.tail": async ({ params, query }) => ({
      body: { name: params.name, lines: [...(await consoles.tail(params.name, query.lines))] },
    }),
  };
}
