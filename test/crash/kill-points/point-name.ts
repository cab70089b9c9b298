/** What a point is called: by its function and its line of the source, so that code which only moves keeps its name. Pure. */

/** A place in a source file; lines and columns count from 1. */
export interface Place {
  /** From the repository's root. */
  readonly file: string;
  readonly functionName: string;
  readonly line: number;
  /** It is an await's: its line is the one on which the awaited expression begins. */
  readonly isAwait: boolean;
}

/** An expression that is awaited may span lines, and the engine names the one of its last call. */
const MOST_LINES_BACK = 8;
const MOST_CHARACTERS = 100;

/** The line on which the awaited expression at this place begins; the place's own where none does. */
function awaitingLine(lines: readonly string[], line: number): number {
  for (let at = line; at > Math.max(0, line - MOST_LINES_BACK); at -= 1) {
    if (/\bawait\b/.test(lines[at - 1] ?? "")) return at;
  }
  return line;
}

/**
 * The name of a place, such as `engine/executors.ts launch: await deps.runtime.launch(spec, signal);`. The n-th of several lines that read the same in one
 * file has `[n]` behind it.
 *
 * @param source the file's text
 */
export function pointName({ file, functionName, line, isAwait }: Place, source: string): string {
  const lines = source.split("\n");
  const at = isAwait ? awaitingLine(lines, line) : line;
  const text = (lines[at - 1] ?? "").trim();
  const nth = lines.slice(0, at).filter((other) => other.trim() === text).length;
  const short = text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS - 1)}…` : text;
  return `${file} ${functionName}: ${short}${nth > 1 ? ` [${nth}]` : ""}`;
}

/** A statement of SQL in one line: enough of it to tell it from others. */
export function sqlName(text: string): string {
  return text.replaceAll(/\s+/g, " ").trim();
}
