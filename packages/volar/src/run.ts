import { CommanderError } from "commander";
import { splitWait } from "./commands/vms/wait-flags.ts";
import { EXIT_DONE, EXIT_USAGE, exitCode, failureText, ProgramExit } from "./failure.ts";
import type { CliIo } from "./io.ts";
import { createProgram } from "./program.ts";

/** Codes of commander's that stand for something that was asked for. */
const ASKED_FOR = new Set(["commander.helpDisplayed", "commander.version"]);

/**
 * Runs one command line.
 *
 * @param argv the words after the program's name
 * @returns the exit code: 0 done, 1 failed, 2 not valid
 */
export async function run(argv: readonly string[], io: CliIo): Promise<number> {
  try {
    const words = splitWait(argv);
    await (await createProgram(words, io)).parseAsync(words, { from: "user" });
    return EXIT_DONE;
  } catch (error) {
    // Commander has said what was wrong already; `help` with a code of its own is what it throws after `volar help vms`.
    if (error instanceof CommanderError) {
      return ASKED_FOR.has(error.code) || (error.code === "commander.help" && error.exitCode === 0)
        ? EXIT_DONE
        : EXIT_USAGE;
    }
    if (error instanceof ProgramExit) return error.code;
    io.stderr.write(failureText(error));
    return exitCode(error);
  }
}
