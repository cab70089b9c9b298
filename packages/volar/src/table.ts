/** Plain columns, two spaces apart, as wide as their widest cell. Pure. */
export type Table = readonly (readonly string[])[];

/** Text that a terminal shows as it is: a guest's words must not move the cursor or change colours. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (character) =>
    character === "\t" ? " " : `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`,
  );
}

/** One line per row, the first of which is the header. Every row has all columns: a cell with nothing in it holds `-`. */
export function formatTable(rows: Table): string {
  return align(rows.map((row) => row.map((cell) => (cell === "" ? "-" : cell))));
}

function align(rows: Table): string {
  const shown = rows.map((row) => row.map(printable));
  const widths: number[] = [];
  for (const row of shown) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return shown
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join("");
}

/** Field names and values, one per line; empty values are left out. */
export function formatFields(fields: readonly (readonly [string, string | number | undefined])[]): string {
  return align(
    fields
      .filter(([, value]) => value !== undefined && value !== "")
      .map(([name, value]) => [`${name}:`, String(value)]),
  );
}
