import { CommanderError, type Command } from "commander";
import { splitWait } from "./commands/vms/wait-flags.ts";
import { VolantError } from "@volant/contract/errors";
import { EXIT_DONE, EXIT_USAGE, exitCode, ProgramExit, renderFailure } from "./failure.ts";
import type { CliIo } from "./io.ts";
import { askedFormat } from "./output.ts";
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

/** Words on a command line that is not valid, as volar says them, as an error: the sentence, and the hint below it. */
function usageFailure(words: string): VolantError {
  const [sentence = "", ...hint] = words.trimEnd().split("\n  ");
  return new VolantError(
    "invalid",
    sentence.replace(/^volar: /, ""),
    hint.length === 0 ? {} : { hint: hint.join(" ") },
  );
}

/**
 * Runs one command line.
 *
 * @param argv the words after the program's name
 * @returns the exit code: 0 done, 1 failed, 2 not valid
 */
export async function run(argv: readonly string[], io: CliIo): Promise<number> {
  const words = splitWait(argv);
  const format = askedFormat(argv);
  let program: Command | undefined;
  let said = "";
  try {
    program = await createProgram(words, io, (text) => (said += text));
    await program.parseAsync(words, { from: "user" });
    return EXIT_DONE;
  } catch (error) {
    // Commander has said what was wrong; `help` with a code of its own is what it throws after `volar help vms`.
    if (error instanceof CommanderError) {
      const isHelp = ASKED_FOR.has(error.code) || error.code === "commander.help";
      if (!isHelp && program !== undefined) said += await hintBelow(error, program, words, io);
      io.stderr.write(isHelp || format === "table" ? said : await renderFailure(usageFailure(said), format));
      return ASKED_FOR.has(error.code) || (isHelp && error.exitCode === 0) ? EXIT_DONE : EXIT_USAGE;
    }
    if (error instanceof ProgramExit) return error.code;
    io.stderr.write(await renderFailure(error, format));
    return exitCode(error);
  }
}
