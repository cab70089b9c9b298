/** Where in the sources the lines of a bundle come from, in a form that is read in no time: from its source map (ECMA-426). Pure. */

/** As esbuild writes it. */
export interface SourceMap {
  readonly sources: readonly string[];
  readonly mappings: string;
}

/** The bundle's files, each with what every of its lines has: from this column on (from 0), it is of that source, and of that line of it (from 1). */
export interface SourceLines {
  readonly sources: readonly string[];
  readonly files: Readonly<Record<string, readonly (readonly number[])[]>>;
}

/** The file in a bundle's folder that has its {@link SourceLines}. */
export const SOURCE_LINES = "source-lines.json";

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const VALUES: ReadonlyMap<string, number> = new Map([...DIGITS].map((digit, value) => [digit, value]));

/** The numbers of one segment: five bits a digit, the lowest first, and a number's lowest bit is its sign. */
function numbersOf(segment: string): number[] {
  const numbers: number[] = [];
  let [value, shift] = [0, 0];
  for (const digit of segment) {
    const bits = VALUES.get(digit) ?? 0;
    value += (bits & 31) << shift;
    shift += 5;
    if ((bits & 32) !== 0) continue;
    numbers.push((value & 1) === 1 ? -(value >> 1) : value >> 1);
    [value, shift] = [0, 0];
  }
  return numbers;
}

/** Each line's places, three numbers for each: column, source, line. What has the same line as the place before it is left out. */
function linesOf(mappings: string): number[][] {
  let [source, line] = [0, 1];
  return mappings.split(";").map((text) => {
    const places: number[] = [];
    let column = 0;
    for (const segment of text.split(",")) {
      const [columns, sources, lines] = numbersOf(segment);
      if (columns === undefined) continue;
      column += columns;
      if (sources === undefined || lines === undefined) continue;
      source += sources;
      line += lines;
      if (places.at(-2) !== source || places.at(-1) !== line) places.push(column, source, line);
    }
    return places;
  });
}

/**
 * @param maps by the names of the bundle's files
 * @param isWanted whether a source, by its path in the map, is one that is asked for: lines of others have no places
 */
export function sourceLines(
  maps: Readonly<Record<string, SourceMap>>,
  isWanted: (source: string) => boolean,
): SourceLines {
  const numbers = new Map<string, number>();
  const numberOf = (source: string): number => {
    const number = numbers.get(source) ?? numbers.size;
    numbers.set(source, number);
    return number;
  };
  const wantedOf = (places: readonly number[], sources: readonly string[]): number[] => {
    const kept: number[] = [];
    for (let at = 0; at < places.length; at += 3) {
      const [column = 0, source = 0, line = 0] = places.slice(at, at + 3);
      const path = sources[source] ?? "";
      if (isWanted(path)) kept.push(column, numberOf(path), line);
    }
    return kept;
  };
  const files = Object.fromEntries(
    Object.entries(maps).map(([name, { sources, mappings }]) => [
      name,
      linesOf(mappings).map((places) => wantedOf(places, sources)),
    ]),
  );
  return { sources: [...numbers.keys()], files };
}

/** The place in the sources of a place in the bundle. @param line from 1 @param column from 1, as V8 says them */
export function placeOf(
  { sources, files }: SourceLines,
  file: string,
  line: number,
  column: number,
): { readonly source: string; readonly line: number } | undefined {
  const places = files[file]?.[line - 1] ?? [];
  let found: { readonly source: string; readonly line: number } | undefined;
  for (let at = 0; at < places.length; at += 3) {
    const [from = 0, source = 0, sourceLine = 0] = places.slice(at, at + 3);
    if (from > column - 1) break;
    found = { source: sources[source] ?? "", line: sourceLine };
  }
  return found;
}
