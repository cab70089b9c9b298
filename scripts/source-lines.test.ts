/** That a place in a bundle is found in the sources, by the source maps that esbuild writes. */
import assert from "node:assert/strict";
import test from "node:test";
import { transformSync } from "esbuild";
import { placeOf, type SourceMap, sourceLines } from "./source-lines.ts";

const SOURCE = `interface Gone {
  readonly inBundle: false;
}

export async function first(): Promise<void> {
  await Promise.all([
    one(),
    two(),
  ]);
}
${"\n".repeat(40)}export const last = (given: Gone): boolean => given.inBundle;
`;

test("each word of a bundle is found on the line of the source that it is of", () => {
  const { code, map } = transformSync(SOURCE, { loader: "ts", sourcefile: "a.ts", sourcemap: "external" });
  const lines = sourceLines({ "a.js": JSON.parse(map) as SourceMap }, () => true);
  const made = code.split("\n");
  const sources = SOURCE.split("\n");
  for (const word of ["first", "await", "one", "two", "last", "inBundle;"]) {
    const line = made.findIndex((text) => text.includes(word)) + 1;
    const column = (made[line - 1] ?? "").indexOf(word) + 1;
    const place = placeOf(lines, "a.js", line, column);
    assert.equal(place?.source, "a.ts", word);
    assert.ok((sources[(place?.line ?? 0) - 1] ?? "").includes(word), `${word} is not on line ${place?.line}`);
  }
});

test("lines of sources that nobody asks for, and lines that the bundle has not, have no place", () => {
  const { map } = transformSync(SOURCE, { loader: "ts", sourcefile: "a.ts", sourcemap: "external" });
  const given = { "a.js": JSON.parse(map) as SourceMap };
  assert.equal(
    placeOf(
      sourceLines(given, () => false),
      "a.js",
      1,
      1,
    ),
    undefined,
  );
  assert.equal(
    placeOf(
      sourceLines(given, () => true),
      "a.js",
      1000,
      1,
    ),
    undefined,
  );
  assert.equal(
    placeOf(
      sourceLines(given, () => true),
      "b.js",
      1,
      1,
    ),
    undefined,
  );
});
