import { printable } from "./table.ts";

export type OutputFormat = "table" | "json" | "yaml";
export const OUTPUT_FORMATS: readonly OutputFormat[] = ["table", "json", "yaml"];

/**
 * How a command line wants answers, whether it is valid or not: for errors, some of which come before its flags are understood. What stands behind `--` is
 * another program's. Pure.
 */
export function askedFormat(argv: readonly string[]): OutputFormat {
  let asked: OutputFormat = "table";
  for (const [index, word] of argv.entries()) {
    if (word === "--") break;
    const value = word === "--output" ? argv[index + 1] : /^--output=(.*)$/s.exec(word)?.[1];
    if (word === "--json") asked = "json";
    asked = OUTPUT_FORMATS.find((format) => format === value) ?? asked;
  }
  return asked;
}

/** What a command gives: data for programs, and how people see it. */
export interface Result {
  readonly data: unknown;
  /** Text for `--output table`, with its line break. */
  readonly text: () => string;
  /** What `--quiet` leaves of it. */
  readonly names: () => readonly string[];
  /** Errors of those objects that failed where others did not. */
  readonly failures: readonly unknown[];
  /** Where the answer itself decides it. */
  readonly exitCode?: number;
}

/**
 * A result from data and the view that shows it.
 *
 * @param names what it names, for `--quiet`; by default the `name` of the object, or of each in the list
 */
export function result<T>(
  data: T,
  view: (data: T) => string,
  failures: readonly unknown[] = [],
  names: (data: T) => readonly string[] = namesIn,
): Result {
  return { data, text: () => view(data), names: () => names(data), failures };
}

function namesIn(data: unknown): string[] {
  if (Array.isArray(data)) return data.flatMap(namesIn);
  if (typeof data !== "object" || data === null || !("name" in data)) return [];
  return typeof data.name === "string" ? [data.name] : [];
}

/** One document of a stream: JSON on a line of its own, YAML after its separator, or a line for people. */
export async function renderItem(item: unknown, format: OutputFormat, line: () => string): Promise<string> {
  if (format === "yaml") return `---\n${(await import("yaml")).stringify(item)}`;
  return `${format === "json" ? JSON.stringify(item) : line()}\n`;
}

/** The data in the asked format, ready to be written; `quiet` leaves nothing of it but names. */
export async function render({ data, text, names }: Result, format: OutputFormat, quiet = false): Promise<string> {
  const shown = quiet ? names() : data;
  if (format === "json") return `${JSON.stringify(shown, undefined, 2)}\n`;
  if (format === "yaml") return (await import("yaml")).stringify(shown);
  return quiet
    ? names()
        .map((name) => `${printable(name)}\n`)
        .join("")
    : text();
}
