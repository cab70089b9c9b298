/** From what a list is asked for to SQL. No value ever becomes part of the text. */
import type { VmFilter } from "../engine/use-cases.ts";

export interface VmQuery {
  /** Starts with WHERE, or empty. */
  readonly where: string;
  readonly parameters: readonly string[];
  readonly orderBy: string;
  /** -1 for no limit (sqlite.org/lang_select.html). */
  readonly limit: number;
  readonly offset: number;
}

const SORTS: Readonly<Record<NonNullable<VmFilter["sort"]>, string>> = {
  name: "name",
  status: "status",
  runtime: "runtime",
  created_at: "created_at",
  updated_at: "updated_at",
};

/** Text in a LIKE pattern that stands for itself, with `\` as the escape. */
function literally(text: string): string {
  return text.replaceAll(/[\\%_]/g, "\\$&");
}

export function vmQuery(filter: VmFilter): VmQuery {
  const conditions: string[] = [];
  const parameters: string[] = [];
  if (filter.status !== undefined && filter.status.length > 0) {
    conditions.push(`status IN (${filter.status.map(() => "?").join(", ")})`);
    parameters.push(...filter.status);
  }
  if (filter.runtime !== undefined) {
    conditions.push("runtime = ?");
    parameters.push(filter.runtime);
  }
  if (filter.plugin !== undefined) {
    conditions.push("plugin = ?");
    parameters.push(filter.plugin);
  }
  if (filter.q !== undefined && filter.q !== "") {
    conditions.push("name LIKE ? ESCAPE '\\'");
    parameters.push(`%${literally(filter.q)}%`);
  }
  const direction = filter.order === "desc" ? "DESC" : "ASC";
  const column = SORTS[filter.sort ?? "name"];
  return {
    where: conditions.length === 0 ? "" : `WHERE ${conditions.join(" AND ")}`,
    parameters,
    // Names are unique: with them last, pages neither overlap nor leave anything out.
    orderBy: `ORDER BY ${column} ${direction}, name ${direction}`,
    limit: filter.limit ?? -1,
    offset: filter.offset ?? 0,
  };
}
