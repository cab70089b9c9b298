/**
 * The frames of an exec stream, the same from the client through volantd to the guest's agent: one byte for the kind, four for the payload's
 * length (big-endian), the payload. docs/agent-protocol.md describes them. Pure, and at home in browsers.
 */
import { isErrorCode, VolantError } from "./errors.ts";

/** The longest payload, in bytes. */
export const MAX_EXEC_PAYLOAD_BYTES = 64 * 1024;
const HEAD_BYTES = 5;

export const EXEC_FRAME = {
  /** To the guest: JSON, an {@link ExecStart}. The first frame, and only the first. */
  start: 0x01,
  /** To the guest: bytes for standard input; an empty one is its end. */
  stdin: 0x02,
  /** To the guest: JSON, a {@link TerminalSize}. */
  resize: 0x03,
  stdout: 0x11,
  stderr: 0x12,
  /** From the guest: JSON, an {@link ExecExit}. The last frame. */
  exit: 0x13,
  /** From the guest: JSON, `{"error","code"}`. The last frame. */
  error: 0x14,
} as const;

/** A terminal's size in characters. */
export interface TerminalSize {
  readonly cols: number;
  readonly rows: number;
}

/** What to run in the guest. */
export interface ExecStart {
  /** The program, looked for in PATH unless it has a slash, and its arguments. */
  readonly argv: readonly string[];
  /** Added to the workload's environment. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Default: `/`. */
  readonly cwd?: string | undefined;
  /** With it the program gets a terminal of this size, and its output is all standard output. */
  readonly tty?: TerminalSize | undefined;
}

/** How a program ended: by itself with a code, or by a signal. */
export type ExecExit = { readonly code: number } | { readonly signal: number };

export interface ExecFrame {
  readonly kind: number;
  readonly payload: Uint8Array;
}

/**
 * One frame's bytes.
 *
 * @throws RangeError when the payload is longer than {@link MAX_EXEC_PAYLOAD_BYTES}: a bug of the caller
 */
export function encodeExecFrame(kind: number, payload: Uint8Array): Uint8Array {
  if (payload.length > MAX_EXEC_PAYLOAD_BYTES) throw new RangeError("the payload of an exec frame is too long");
  const bytes = new Uint8Array(HEAD_BYTES + payload.length);
  bytes[0] = kind;
  new DataView(bytes.buffer).setUint32(1, payload.length);
  bytes.set(payload, HEAD_BYTES);
  return bytes;
}

/**
 * The start frame.
 *
 * @throws VolantError `too_large` when the words do not fit into a frame
 */
export function encodeExecStart(start: ExecStart): Uint8Array {
  const payload = new TextEncoder().encode(JSON.stringify(start));
  if (payload.length > MAX_EXEC_PAYLOAD_BYTES) {
    throw new VolantError("too_large", "the command and its environment are longer than 64 KiB", {
      hint: "send what is long on standard input",
    });
  }
  return encodeExecFrame(EXEC_FRAME.start, payload);
}

/** Cuts a byte stream into frames. Holds at most one frame that is not complete. */
export class ExecFrameDecoder {
  #held: Uint8Array = new Uint8Array();

  /**
   * The frames that these bytes complete.
   *
   * @throws VolantError `guest_unreachable` for a frame that is too long: whoever sends it speaks another protocol
   */
  feed(bytes: Uint8Array): ExecFrame[] {
    let rest = bytes;
    if (this.#held.length > 0) {
      rest = new Uint8Array(this.#held.length + bytes.length);
      rest.set(this.#held);
      rest.set(bytes, this.#held.length);
    }
    const frames: ExecFrame[] = [];
    while (rest.length >= HEAD_BYTES) {
      const length = new DataView(rest.buffer, rest.byteOffset).getUint32(1);
      if (length > MAX_EXEC_PAYLOAD_BYTES) {
        throw new VolantError("guest_unreachable", "the guest's agent sent what is no exec frame");
      }
      if (rest.length < HEAD_BYTES + length) break;
      frames.push({ kind: rest[0] ?? 0, payload: rest.subarray(HEAD_BYTES, HEAD_BYTES + length) });
      rest = rest.subarray(HEAD_BYTES + length);
    }
    // A copy: the caller's buffer may be used again.
    this.#held = rest.slice();
    return frames;
  }
}

/** An exit frame's content; undefined when it is none. */
export function parseExecExit(payload: Uint8Array): ExecExit | undefined {
  const { code, signal } = parseObject(payload);
  if (Number.isInteger(code) && (code as number) >= 0 && (code as number) <= 255) return { code: code as number };
  if (Number.isInteger(signal) && (signal as number) > 0 && (signal as number) <= 64) {
    return { signal: signal as number };
  }
  return undefined;
}

/** An error frame's content, with the agent's own code: `not_found` and `not_executable` are about the program. */
export function parseExecError(payload: Uint8Array): { readonly error: string; readonly code: string } {
  const { error, code } = parseObject(payload);
  return {
    error: typeof error === "string" ? error.slice(0, 1024) : "the guest's agent could not run it",
    code: typeof code === "string" ? code.slice(0, 64) : "failed",
  };
}

/** An error frame's content as this API's error: `forbidden` for what can't be executed. */
export function execFailure({ error, code }: ReturnType<typeof parseExecError>): VolantError {
  if (code === "not_executable") return new VolantError("forbidden", error);
  return new VolantError(isErrorCode(code) && code !== "internal" ? code : "guest_unreachable", error);
}

function parseObject(payload: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(payload));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
