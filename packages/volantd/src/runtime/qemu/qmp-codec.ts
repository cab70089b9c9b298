/**
 * QEMU's machine protocol as bytes: one JSON object a line, from QEMU a greeting, answers and events (QEMU, docs/interop/qmp-spec). Pure, and bounded: a
 * hypervisor that a guest has taken over may send anything.
 */

/** The answers and events that Volant asks for are a few hundred bytes long. */
export const MAX_LINE_BYTES = 64 * 1024;

export class QmpError extends Error {
  /** QEMU's error class, such as `GenericError`; absent where the connection failed, not the command. */
  readonly errorClass: string | undefined;
  constructor(message: string, errorClass?: string) {
    super(message);
    this.name = "QmpError";
    this.errorClass = errorClass;
  }
}

export type QmpMessage =
  | { readonly kind: "greeting" }
  | { readonly kind: "return"; readonly id: number; readonly value: unknown }
  | { readonly kind: "error"; readonly id: number; readonly errorClass: string; readonly description: string }
  | { readonly kind: "event"; readonly event: string; readonly data: Readonly<Record<string, unknown>> };

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws QmpError when the line is nothing that QEMU sends */
export function parseQmpLine(line: string): QmpMessage {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new QmpError("the hypervisor's control socket sent a line that is no JSON");
  }
  if (!isObject(value)) throw new QmpError("the hypervisor's control socket sent no object");
  if (isObject(value["QMP"])) return { kind: "greeting" };
  if (typeof value["event"] === "string") {
    return { kind: "event", event: value["event"], data: isObject(value["data"]) ? value["data"] : {} };
  }
  const id = value["id"];
  if (typeof id === "number" && "return" in value) return { kind: "return", id, value: value["return"] };
  const error = value["error"];
  if (typeof id === "number" && isObject(error)) {
    const errorClass = typeof error["class"] === "string" ? error["class"] : "GenericError";
    return {
      kind: "error",
      id,
      errorClass,
      description: typeof error["desc"] === "string" ? error["desc"] : "no reason",
    };
  }
  throw new QmpError("the hypervisor's control socket sent an object of no known kind");
}

const NOTHING = Buffer.alloc(0);

/** Cuts a byte stream into lines and reads each. */
export class QmpDecoder {
  #rest: Buffer = NOTHING;

  /**
   * The messages that `chunk` completes.
   *
   * @throws QmpError for a line that is too long or nothing that QEMU sends; the stream is of no use then
   */
  push(chunk: Buffer): QmpMessage[] {
    const messages: QmpMessage[] = [];
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    for (let end = bytes.indexOf(0x0a); end !== -1; end = bytes.indexOf(0x0a)) {
      if (end > MAX_LINE_BYTES) break;
      const line = bytes.subarray(0, end).toString("utf8").trim();
      bytes = bytes.subarray(end + 1);
      if (line !== "") messages.push(parseQmpLine(line));
    }
    if (bytes.length > MAX_LINE_BYTES) throw new QmpError("the hypervisor's control socket sent too long a line");
    // A copy, so that a short rest does not hold on to a large chunk.
    this.#rest = bytes.length === 0 ? NOTHING : Buffer.from(bytes);
    return messages;
  }
}

export function encodeQmpCommand(id: number, command: string, args?: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify({ execute: command, ...(args === undefined ? {} : { arguments: args }), id })}\n`;
}
