/** Lays out what `npm run package` packs: both programs, each with all that it imports in a few files, the guest agent and what confines hypervisors. */
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { build, type BuildOptions, stop } from "esbuild";
import { VOLANT_VERSION } from "@volant/contract/defaults";
import { SOURCE_LINES, type SourceMap, sourceLines } from "./source-lines.ts";

export const root = join(import.meta.dirname, "..");
/** The guest agent, and what confines hypervisors. */
const rustPrograms = ["kestrel", "volant-confine"];
const built = join(root, "kestrel/target/x86_64-unknown-linux-gnu/release");

/** What makes a program, with all that it imports, a few files. */
const BUNDLE = {
  absWorkingDir: root,
  bundle: true,
  // What is imported when it is needed stays a file of its own.
  splitting: true,
  chunkNames: "chunks/[name]-[hash]",
  format: "esm",
  platform: "node",
  target: "node24",
  external: ["koffi"],
  // Dependencies in CommonJS call it.
  banner: {
    js: 'import { createRequire as volantRequire } from "node:module"; const require = volantRequire(import.meta.url);',
  },
  logLevel: "warning",
} satisfies BuildOptions;

/** What npm is to know of the package. */
function manifest(): object {
  const read = (path: string) => JSON.parse(readFileSync(join(root, path), "utf8")) as Record<string, never>;
  const { description, license, engines } = read("package.json");
  // As it was tested, and no other version.
  const { version: koffi } = read("node_modules/koffi/package.json") as unknown as { readonly version: string };
  return {
    name: "volant",
    version: VOLANT_VERSION,
    description,
    license,
    type: "module",
    engines,
    os: ["linux"],
    cpu: [process.arch],
    bin: { volar: "bin/volar", volantd: "bin/volantd" },
    dependencies: { koffi },
  };
}

/** Lays the package out in a folder, in place of what is there. @throws Error where a Rust program is not built */
export async function layOut(folder: string): Promise<void> {
  for (const name of rustPrograms) {
    if (!existsSync(join(built, name))) throw new Error(`${name} is not built: npm run package does that first`);
  }
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  cpSync(join(import.meta.dirname, "package"), folder, { recursive: true });
  await build({
    ...BUNDLE,
    entryPoints: { volantd: "packages/volantd/src/main.ts", volar: "packages/volar/src/main.ts" },
    outdir: join(folder, "lib/main"),
    legalComments: "linked",
    // Node keeps the text of a program in memory for as long as it runs. Names stay, for whoever reads a stack.
    minifyWhitespace: true,
    minifySyntax: true,
  });
  await stop();
  for (const name of rustPrograms) {
    copyFileSync(join(built, name), join(folder, "lib", name));
    chmodSync(join(folder, "lib", name), 0o755);
  }
  for (const name of ["LICENSE", "README.md"]) copyFileSync(join(root, name), join(folder, name));
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(manifest(), null, 2)}\n`);
}

/**
 * Bundles modules of the packages for tests that look into them: functions keep their names, and a file beside them has the lines of the sources (./source-lines.ts), whose paths
 * are from `packages` on.
 *
 * @param modules by the names that they have in the folder, without `.js`
 */
export async function bundleModules(folder: string, modules: Readonly<Record<string, string>>): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  const options = { ...BUNDLE, entryPoints: { ...modules }, outdir: folder, legalComments: "none" } as const;
  const { outputFiles } = await build({ ...options, keepNames: true, sourcemap: "external", write: false });
  await stop();
  const packages = join(root, "packages");
  const maps: Record<string, SourceMap> = {};
  for (const { path, text, contents } of outputFiles) {
    mkdirSync(dirname(path), { recursive: true });
    if (!path.endsWith(".map")) {
      writeFileSync(path, contents);
      continue;
    }
    const { sources, mappings } = JSON.parse(text) as SourceMap;
    const file = relative(folder, path.slice(0, -".map".length));
    maps[file] = { sources: sources.map((source) => relative(packages, join(dirname(path), source))), mappings };
  }
  const lines = sourceLines(maps, (source) => !source.startsWith(".."));
  writeFileSync(join(folder, SOURCE_LINES), JSON.stringify(lines));
}
