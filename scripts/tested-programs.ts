/**
 * What the houses of the tests run: the package's programs, laid out as npm installs them, and a bundle of volantd for tests that kill it. Both start with half the processor time that
 * the sources take, or less.
 */
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
} from "node:fs";
import { join } from "node:path";
import { KILLABLE_MODULES } from "../test/crash/kill-points/killable-modules.ts";
import { bundleModules, layOut, root } from "./lay-out.ts";

/** Another run may use one that is not the newest, but none takes so long. */
const KEPT_MS = 24 * 60 * 60_000;

function digestOf(folder: string): string {
  const hash = createHash("sha256");
  for (const name of globSync("**", { cwd: folder }).sort()) {
    const info = lstatSync(join(folder, name));
    hash.update(`${name}\0${info.mode}\0`);
    if (info.isFile()) hash.update(readFileSync(join(folder, name)));
  }
  return hash.digest("hex").slice(0, 16);
}

/**
 * Makes a folder, and keeps it under a name that its contents give it: a run at the same time does not lose what it uses, and what Node has compiled of it is found by the next run.
 *
 * @param kind what it is one of, a folder in `.cache`
 * @returns its path
 */
async function keep(kind: string, make: (folder: string) => Promise<void>): Promise<string> {
  const all = join(root, ".cache", kind);
  mkdirSync(all, { recursive: true });
  const made = mkdtempSync(join(all, "new-"));
  try {
    await make(made);
    // As all that it is in: some tests run programs as another user.
    chmodSync(made, 0o755);
    const kept = join(all, digestOf(made));
    if (!existsSync(kept)) {
      try {
        renameSync(made, kept);
      } catch (error) {
        // Another run has just kept the same.
        if (!existsSync(kept)) throw error;
      }
    }
    utimesSync(kept, new Date(), new Date());
    return kept;
  } finally {
    rmSync(made, { recursive: true, force: true });
    for (const name of readdirSync(all)) {
      const old = join(all, name);
      if (Date.now() - statSync(old).mtimeMs > KEPT_MS) rmSync(old, { recursive: true, force: true });
    }
  }
}

/** Makes both. Gives the variables by which test/vm/house.ts and test/crash/kill-points find them. */
export async function layOutTestedPrograms(): Promise<
  Readonly<Record<"VOLANT_TEST_PROGRAMS" | "VOLANT_TEST_BUNDLE", string>>
> {
  const prefix = await keep("programs", async (folder) => {
    await layOut(join(folder, "lib/node_modules/volant"));
    // Where npm's prefix is, its Node is.
    mkdirSync(join(folder, "bin"));
    symlinkSync(process.execPath, join(folder, "bin/node"));
  });
  const bundle = await keep("killable", (folder) => {
    const modules = KILLABLE_MODULES.map((name) => [name, `packages/volantd/src/${name}.ts`] as const);
    return bundleModules(folder, Object.fromEntries(modules));
  });
  return { VOLANT_TEST_PROGRAMS: join(prefix, "lib/node_modules/volant/bin"), VOLANT_TEST_BUNDLE: bundle };
}
