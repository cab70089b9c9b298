/** `volar kernel install`: lays out the kernel that guests boot. */
import { DEFAULTS } from "@volant/contract/defaults";
import type { Command } from "commander";
import { action, type CommandContext } from "../../context.ts";
import { type CliIo, processIo } from "../../io.ts";
import { type Result, result } from "../../output.ts";

export interface KernelInstallFlags {
  readonly file?: string;
  readonly modules?: string;
  readonly workDir?: string;
}

/** Adds `kernel` and its verbs to the program. */
export function registerKernel(program: Command, io: CliIo = processIo()): void {
  program
    .command("kernel")
    .description("the kernel that guests boot")
    .command("install")
    .description(
      "Installs the guests' kernel, from the distribution's package or from a file, with the modules it needs.",
    )
    .option("--file <bzImage>", "a kernel image instead of the distribution's")
    .option("--modules <folder>", "the modules of that kernel, as below /lib/modules/<release>")
    .option("--work-dir <folder>", `where it goes, in kernel/ (VOLANT_WORK_DIR, ${DEFAULTS.workDir})`)
    .action(action(io, installCommand));
}

async function installCommand(context: CommandContext, flags: KernelInstallFlags): Promise<Result> {
  const { VolantError } = await import("@volant/contract/errors");
  if (flags.modules !== undefined && flags.file === undefined) {
    throw new VolantError("invalid", "--modules goes with --file: the distribution's kernel has modules of its own");
  }
  const { installKernel } = await import("@volant/host");
  const { resolve } = await import("node:path");
  const { workDirSetting } = await import("../setup/flags.ts");
  const modules = flags.modules === undefined ? {} : { modulesDir: resolve(flags.modules) };
  const installed = await installKernel({
    workDir: workDirSetting(flags, context.io.env),
    source:
      flags.file === undefined ? { kind: "distribution" } : { kind: "file", path: resolve(flags.file), ...modules },
    onProgress: (line) => {
      if (context.tells) context.io.stdout.write(`${line}\n`);
    },
  });
  const { changed, record, bzImagePath, elfPath } = installed;
  const data = {
    changed,
    release: record.release,
    ...(record.package === undefined ? {} : { package: record.package }),
    ...(record.version === undefined ? {} : { version: record.version }),
    bzimage: bzImagePath,
    ...(elfPath === undefined ? {} : { vmlinux: elfPath }),
    modules: record.modules.map(({ name }) => name),
  };
  return result(
    data,
    ({ release, bzimage }) => `kernel ${release} ${changed ? "installed" : "unchanged"}: ${bzimage}\n`,
    [],
    ({ release }) => [release],
  );
}
