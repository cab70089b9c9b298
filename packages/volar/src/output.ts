export type OutputFormat = "table" | "json" | "yaml";
export const OUTPUT_FORMATS: readonly OutputFormat[] = ["table", "json", "yaml"];

/** What a command gives: data for programs, and how people see it. */
export interface Result {
  readonly data: unknown;
  /** Text for `--output table`, with its line break. */
  readonly text: () => string;
  /** Errors of those objects that failed where others did not. */
  readonly failures: readonly unknown[];
  /** Where the answer itself decides it. */
  readonly exitCode?: number;
}

/** A result from data and the view that shows it. */
export function result<T>(data: T, view: (data: T) => string, failures: readonly unknown[] = []): Result {
  return { data, text: () => view(data), failures };
}

/** The data in the asked format, ready to be written. */
export async function render({ data, text }: Result, format: OutputFormat): Promise<string> {
  if (format === "json") return `${JSON.stringify(data, undefined, 2)}\n`;
  if (format === "yaml") return (await import("yaml")).stringify(data);
  return text();
}
