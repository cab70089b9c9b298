/**
 * `npm run package`: makes dist/volant-<version>.tgz, which `npm install --global` installs on any Linux host of this architecture: both programs, each with all that it imports in
 * a few files (Node strips no types below node_modules), the guest agent and what confines hypervisors. koffi stays a dependency, since its binary is its own package.
 */
import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { VOLANT_VERSION } from "@volant/contract/defaults";

const root = join(import.meta.dirname, "..");
/** The guest agent, and what confines hypervisors. */
const rustPrograms = ["kestrel", "volant-confine"];
const built = join(root, "kestrel/target/x86_64-unknown-linux-gnu/release");

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

/** Lays the package out in a folder. */
async function layOut(folder: string): Promise<void> {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  cpSync(join(import.meta.dirname, "package"), folder, { recursive: true });
  await build({
    absWorkingDir: root,
    entryPoints: { volantd: "packages/volantd/src/main.ts", volar: "packages/volar/src/main.ts" },
    outdir: join(folder, "lib/main"),
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
    legalComments: "linked",
    logLevel: "warning",
  });
  for (const name of rustPrograms) {
    copyFileSync(join(built, name), join(folder, "lib", name));
    chmodSync(join(folder, "lib", name), 0o755);
  }
  for (const name of ["LICENSE", "README.md"]) copyFileSync(join(root, name), join(folder, name));
  writeFileSync(join(folder, "package.json"), `${JSON.stringify(manifest(), null, 2)}\n`);
}

const [outside] = process.argv.slice(2);
const dist = outside ?? join(root, "dist");
for (const name of rustPrograms) {
  if (!existsSync(join(built, name))) throw new Error(`${name} is not built: npm run package does that first`);
}
const staging = join(dist, "package");
await layOut(staging);
execFileSync("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", dist], {
  cwd: staging,
  stdio: "pipe",
});
rmSync(staging, { recursive: true });
process.stdout.write(`${join(dist, `volant-${VOLANT_VERSION}.tgz`)}\n`);
