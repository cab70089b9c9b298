import { CommanderError, type Command } from "commander";
import { splitWait } from "./commands/vms/wait-flags.ts";
import { EXIT_DONE, EXIT_USAGE, exitCode, failureText, ProgramExit } from "./failure.ts";
import type { CliIo } from "./io.ts";
import { createProgram, createWholeProgram } from "./program.ts";
import { findCommand, missingNoun, usageHint } from "./usage-hint.ts";

/** Codes of commander's that stand for something that was asked for. */
const ASKED_FOR = new Set(["commander.helpDisplayed", "commander.version"]);

/** What to do about it, where commander has not said so already. */
async function hintBelow(
  error: CommanderError,
  program: Command,
  words: readonly string[],
  io: CliIo,
): Promise<string> {
  if (error.message.includes("(Did you mean ")) return "";
  const [word = ""] = program.args;
  if (error.code === "commander.unknownCommand" && findCommand(program, words) === program) {
    const missing = missingNoun((await createWholeProgram(io)).commands, word);
    if (missing !== undefined) return missing;
  }
  return usageHint(program, words);
}

/**
 * Runs one command line.
 *
 * @param argv the words after the program's name
 * @returns the exit code: 0 done, 1 failed, 2 not valid
 */
export async function run(argv: readonly string[], io: CliIo): Promise<number> {
  const words = splitWait(argv);
  let program: Command | undefined;
  try {
    program = await createProgram(words, io);
    await program.parseAsync(words, { from: "user" });
    return EXIT_DONE;
  } catch (error) {
    // Commander has said what was wrong already; `help` with a code of its own is what it throws after `volar help vms`.
    if (error instanceof CommanderError) {
      if (ASKED_FOR.has(error.code)) return EXIT_DONE;
      if (error.code === "commander.help") return error.exitCode === 0 ? EXIT_DONE : EXIT_USAGE;
      if (program !== undefined) io.stderr.write(await hintBelow(error, program, words, io));
      return EXIT_USAGE;
    }
    if (error instanceof ProgramExit) return error.code;
    io.stderr.write(failureText(error));
    return exitCode(error);
  }
}
