/** Where this installation's own files are: a checkout's, or those of the package that is made of it. Loads nothing. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** The nearest folder above this module that has the programs. */
function findRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, "bin/volantd"))) {
    const parent = dirname(folder);
    if (parent === folder)
      throw new Error(`no folder above ${import.meta.dirname} has bin/volantd: the installation is not whole`);
    folder = parent;
  }
  return folder;
}

/** Path of one of the installation's programs, `volantd` or `volar`. */
export function ownProgram(name: "volantd" | "volar"): string {
  return join(findRoot(), "bin", name);
}

/** Where a Rust program is; the package has it beside its other programs, a checkout where cargo leaves it. */
function rustProgram(name: string): string {
  const root = findRoot();
  const packaged = join(root, "lib", name);
  return existsSync(packaged) ? packaged : join(root, "kestrel/target/x86_64-unknown-linux-gnu/release", name);
}

/** Where the guest agent is. It need not be there. */
export function agentPath(): string {
  return rustProgram("kestrel");
}

/** Where the program is that confines hypervisors. It need not be there. */
export function confinerPath(): string {
  return rustProgram("volant-confine");
}
