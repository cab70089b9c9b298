/** What a tool's caller is told: pure. */
import { VolantError, type ErrorBody } from "@volant/contract";
import type { RouteAnswer } from "./call.ts";
import type { Tool } from "./tools.ts";

/** Whoever reads an answer keeps it in a context of a few hundred thousand words. */
export const MAX_ANSWER_BYTES = 262_144;

type Json = Readonly<Record<string, unknown>>;

/** The answer as an object. */
export function answerObject(tool: Tool, { body, total }: RouteAnswer): Json {
  if (body === undefined || body === null) return { done: true };
  const object = tool.answerName === undefined ? (body as Json) : { [tool.answerName]: body };
  return total === undefined ? object : { ...object, total };
}

function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length;
}

/** How many of the last items fit. */
function lastThatFit(items: readonly unknown[], maxBytes: number): number {
  let room = maxBytes;
  let count = 0;
  for (const item of items.toReversed()) {
    room -= bytesOf(JSON.stringify(item)) + 1;
    if (room < 0) break;
    count += 1;
  }
  return count;
}

/** The text's beginning, as long as its JSON has room. */
function beginningThatFits(text: string, maxBytes: number): string {
  let kept = text;
  for (let bytes = bytesOf(JSON.stringify(kept)); bytes > maxBytes; bytes = bytesOf(JSON.stringify(kept))) {
    kept = kept.slice(0, Math.floor((kept.length * maxBytes) / bytes));
  }
  return kept.toWellFormed();
}

/** The answer, cut where a part of it is of use; undefined where it is not. */
function cut(object: Json, maxBytes: number): Json | undefined {
  const { lines, stdout, stderr } = object;
  if (Array.isArray(lines)) {
    const kept = lines.slice(lines.length - lastThatFit(lines, maxBytes));
    return { ...object, lines: kept, left_out: lines.length - kept.length };
  }
  if (typeof stdout !== "string" || typeof stderr !== "string") return undefined;
  const room = Math.floor(maxBytes / 2);
  // What a program has done is done: better half of what it said than a refusal.
  return {
    ...object,
    stdout: beginningThatFits(stdout, room),
    stderr: beginningThatFits(stderr, room),
    truncated: true,
  };
}

/**
 * The answer as JSON text. Of lines, as many of the last ones as there is room for; of a program's output, the beginning.
 *
 * @throws VolantError `too_large`, saying what to ask instead
 */
export function answerText(
  tool: Tool,
  answer: RouteAnswer,
  maxBytes: number = MAX_ANSWER_BYTES,
): { readonly text: string; readonly object: Json } {
  const object = answerObject(tool, answer);
  const text = JSON.stringify(object);
  if (bytesOf(text) <= maxBytes) return { text, object };
  // A quarter is for what surrounds it.
  const part = cut(object, Math.floor((maxBytes * 3) / 4));
  if (part !== undefined) return { text: JSON.stringify(part), object: part };
  throw new VolantError("too_large", `the answer of ${tool.name} has more than ${Math.round(maxBytes / 1024)} KiB`, {
    hint: "ask for less: a smaller limit, or a filter",
  });
}

/** The API's error body of an expected failure; undefined for a bug. */
export function refusalOf(error: unknown): ErrorBody | undefined {
  if (!(error instanceof VolantError)) return undefined;
  const { message, code, hint } = error;
  return { error: message, code, ...(hint === undefined ? {} : { hint }) };
}
