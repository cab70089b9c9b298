/** What a page loads when it imports the SDK. test/browser runs it there; this says at once what would keep it from running. */
import assert from "node:assert/strict";
import { join, relative } from "node:path";
import test from "node:test";
import { build, type BuildResult } from "esbuild";

const root = join(import.meta.dirname, "../../..");
const entry = join(import.meta.dirname, "index.ts");

/** Bundles a module for browsers, where nothing of Node's can be imported. @throws what esbuild could not resolve */
function bundle(source: string): Promise<BuildResult<{ metafile: true }>> {
  return build({
    stdin: { contents: source, resolveDir: root, loader: "ts" },
    bundle: true,
    write: false,
    metafile: true,
    platform: "browser",
    format: "esm",
    logLevel: "silent",
  });
}

test("the SDK's browser entry imports nothing but itself and the contract without its schemas, and nothing of Node's", async () => {
  const { metafile } = await bundle(`export * from ${JSON.stringify(entry)};`);
  const inputs = Object.keys(metafile.inputs).filter((name) => name !== "<stdin>");
  const files = inputs.map((name) => relative(root, join(process.cwd(), name)));
  assert.ok(files.includes("packages/sdk/src/client.ts"), files.join(", "));
  assert.deepEqual(
    files.filter((file) => !/^packages\/(sdk\/src\/(?!node\/)|contract\/src\/)/.test(file)),
    [],
  );
  const imports = Object.values(metafile.outputs).flatMap((output) => output.imports);
  assert.deepEqual(imports, []);
});

test("that would be seen: an import of Node's, and Node's part of the SDK, can't be bundled for browsers", async () => {
  for (const source of [`import "node:fs";`, `export * from "./packages/sdk/src/node/index.ts";`]) {
    await assert.rejects(bundle(source), /Could not resolve "node:/, source);
  }
});
