/** From anything thrown to words and an exit code. */
import type { ErrorBody } from "@volant/contract";
import { errorStatus, VolantError } from "@volant/contract/errors";
import { renderItem, type OutputFormat } from "./output.ts";
import { printable } from "./table.ts";

export const EXIT_DONE = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;

/** Several objects were asked for and some failed: each has its own error. */
export class SeveralFailures extends Error {
  readonly errors: readonly unknown[];

  constructor(errors: readonly unknown[]) {
    super(`${errors.length} failures`);
    this.name = "SeveralFailures";
    this.errors = errors;
  }
}

/** What was asked for was done and printed, and the answer calls for this exit code. */
export class AnsweredWithCode extends Error {
  readonly code: number;

  constructor(code: number) {
    super(`the answer calls for exit code ${code}`);
    this.name = "AnsweredWithCode";
    this.code = code;
  }
}

/** A program that volar ran has ended: its exit code is volar's. All there was to say is said. */
export class ProgramExit extends Error {
  readonly code: number;

  constructor(code: number) {
    super(`the program ended with code ${code}`);
    this.name = "ProgramExit";
    this.code = code;
  }
}

/** 2 where what was asked is not valid, else 1. */
export function exitCode(error: unknown): number {
  if (error instanceof AnsweredWithCode) return error.code;
  if (error instanceof SeveralFailures) return Math.max(...error.errors.map(exitCode));
  return error instanceof VolantError && errorStatus(error.code) === 400 ? EXIT_USAGE : EXIT_FAILED;
}

/** `volar: <sentence>` and a hint where there is one. A bug shows its stack: it is for whoever reports it. */
export function failureText(error: unknown): string {
  if (error instanceof AnsweredWithCode) return "";
  if (error instanceof SeveralFailures) return error.errors.map(failureText).join("");
  if (error instanceof VolantError) {
    const hint = error.hint === undefined ? "" : `  ${printable(error.hint)}\n`;
    return `volar: ${printable(error.message)}\n${hint}`;
  }
  return `volar: ${bugText(error)}\n`;
}

function bugText(error: unknown): string {
  const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return `this is a bug in volar, please report it: ${detail}`;
}

/** The same for programs: each error as the API words its own, with `code` and `hint`. */
export function failureBodies(error: unknown): ErrorBody[] {
  if (error instanceof AnsweredWithCode) return [];
  if (error instanceof SeveralFailures) return error.errors.flatMap(failureBodies);
  if (!(error instanceof VolantError)) return [{ error: bugText(error), code: "internal" }];
  const { message, code, hint } = error;
  return [{ error: message, code, ...(hint === undefined ? {} : { hint }) }];
}

/** What standard error says of a failure: words for people, or, where answers are for programs, a document for each error. */
export async function renderFailure(error: unknown, format: OutputFormat): Promise<string> {
  if (format === "table") return failureText(error);
  const documents = failureBodies(error).map((body) => renderItem(body, format, () => ""));
  return (await Promise.all(documents)).join("");
}
