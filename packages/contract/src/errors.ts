/**
 * The one error type for expected failures, and the catalogue of its codes. A code fixes the HTTP status and the CLI's
 * exit code, so that every program that speaks Volant tells the same story. Bugs stay plain errors.
 */

interface CodeFacts {
  /** HTTP status of an answer that carries this code. */
  readonly status: number;
  /** What the code means, for the reference documents. */
  readonly meaning: string;
}

export const ERROR_CODES = {
  invalid: { status: 400, meaning: "The request, a flag, a manifest or a setting is not valid." },
  checksum_mismatch: { status: 400, meaning: "A file's content does not have the checksum it was given with." },
  unauthorized: { status: 401, meaning: "The API key is missing or wrong." },
  forbidden: { status: 403, meaning: "This client may not do that." },
  not_found: { status: 404, meaning: "The named object does not exist." },
  exists: { status: 409, meaning: "The name, address or identity is already taken." },
  disabled: { status: 409, meaning: "The plugin is disabled." },
  key_reused: { status: 409, meaning: "The Idempotency-Key was used for another request." },
  wrong_state: { status: 409, meaning: "The object's state does not allow the operation." },
  in_use: { status: 409, meaning: "The object is still needed by another one." },
  too_large: { status: 413, meaning: "The request is larger than allowed." },
  rate_limited: { status: 429, meaning: "Too many requests." },
  internal: { status: 500, meaning: "A bug in Volant." },
  not_supported: { status: 501, meaning: "A part of the contract that this version does not honour yet." },
  guest_unreachable: { status: 502, meaning: "The guest's agent or workload does not answer." },
  exhausted: { status: 503, meaning: "No free address, port or other host resource is left." },
  not_ready: { status: 503, meaning: "The host lacks something that the operation needs." },
  timeout: { status: 504, meaning: "The operation did not finish in time." },
} as const satisfies Record<string, CodeFacts>;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface VolantErrorOptions {
  /** What the reader can do about it: a sentence or a command. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/** An expected failure: a code, one clear sentence, and where it helps a hint at what to do next. */
export class VolantError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: VolantErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "VolantError";
    this.code = code;
    this.hint = options.hint;
  }
}

/** Whether `code` is one of the catalogue's: for code that reads an answer from the wire. */
export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(ERROR_CODES, code);
}

/** HTTP status for a code. */
export function errorStatus(code: ErrorCode): number {
  return ERROR_CODES[code].status;
}
