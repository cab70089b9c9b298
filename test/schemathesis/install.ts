/** Schemathesis, a program in Python that makes requests from an OpenAPI document: in an environment of its own below .toolchain, brought when it is missing. */
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { root, runProgram } from "../vm/house.ts";

const VERSION = "4.32.5";

async function done(program: string, ...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await runProgram(program, args);
  if (code === 0) return;
  const why = `${stdout}\n${stderr}`.trim().split("\n").slice(-5).join("\n");
  throw new Error(
    `this check needs schemathesis ${VERSION}, and it can't be installed: ${program} ${args.join(" ")} failed (it takes Python 3.10 with venv, and the network):\n${why}`,
  );
}

/** @returns the program's path @throws Error with a sentence, where it can't be installed */
export async function installSchemathesis(): Promise<string> {
  const folder = join(root, ".toolchain", `schemathesis-${VERSION}`);
  const program = join(folder, "bin/schemathesis");
  if (existsSync(program)) return program;
  process.stderr.write(`volant: schemathesis ${VERSION} (pip install), into ${folder} …\n`);
  try {
    await done("python3", "-m", "venv", folder);
    await done(
      join(folder, "bin/pip"),
      "install",
      "--quiet",
      "--disable-pip-version-check",
      `schemathesis==${VERSION}`,
    );
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  }
  return program;
}
