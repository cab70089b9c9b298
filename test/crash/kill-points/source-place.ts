/** What of the code that runs is volantd's own, and where in the sources it stands. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { placeOf, SOURCE_LINES, type SourceLines } from "../../../scripts/source-lines.ts";

/** A line of a source, whose path is from `packages` on. */
export interface SourcePlace {
  readonly file: string;
  readonly line: number;
}

/** Gives undefined for code that is not volantd's own. Lines and columns count from 1. */
export type FindSource = (url: string, line: number, column: number) => SourcePlace | undefined;

/** Of the sources themselves. @param packages their folder */
export function findInSources(packages: string): FindSource {
  const start = `${pathToFileURL(packages).href}/`;
  return (url, line) =>
    url.startsWith(start) ? { file: fileURLToPath(url).slice(packages.length + 1), line } : undefined;
}

/** Of a bundle of them. @param folder as scripts/lay-out.ts made it */
export function findInBundle(folder: string): FindSource {
  const lines = JSON.parse(readFileSync(join(folder, SOURCE_LINES), "utf8")) as SourceLines;
  const start = `${pathToFileURL(folder).href}/`;
  return (url, line, column) => {
    const found = url.startsWith(start) ? placeOf(lines, url.slice(start.length), line, column) : undefined;
    return found === undefined ? undefined : { file: found.source, line: found.line };
  };
}
