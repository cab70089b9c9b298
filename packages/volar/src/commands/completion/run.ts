/** `volar __complete`, which the shells' scripts ask: a candidate a line with what it is, and `:files` or `:folders` where such belong there, too. */
import { InvalidArgumentError } from "commander";
import type { CommandContext } from "../../context.ts";
import { liveNames } from "../../live-names.ts";
import { createProgram } from "../../program.ts";
import { printable } from "../../table.ts";
import { durationMs } from "../../values.ts";
import { complete } from "./complete.ts";

/** Somebody waits with a finger on the Tab key. */
const NAMES_WITHIN_MS = 1000;

/** As the contract has names. What a shell puts on a command line must be no more than a name, whoever answered. */
const PLAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** @param setting VOLANT_COMPLETION_TIMEOUT; one that is no time is as none, since nothing can be said here */
function patienceMs(setting: string | undefined): number {
  try {
    return durationMs(setting ?? "");
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    return NAMES_WITHIN_MS;
  }
}

/** Prints candidates for the last of the words; says nothing when volantd is away. */
export async function printCompletions(context: CommandContext, words: readonly string[]): Promise<undefined> {
  const program = await createProgram(words.slice(0, -1), context.io);
  const current = words.at(-1) ?? "";
  const { candidates, meaning, before, taken, values } = complete(program, words);
  const lines = candidates.map(({ word, about }) => `${word}\t${printable(about)}`);
  if (meaning.nouns.length > 0) {
    const open = () => context.clientAt(values["api"], values["apiKey"]);
    const limitMs = patienceMs(context.io.env["VOLANT_COMPLETION_TIMEOUT"]);
    for (const name of await liveNames(open, meaning.nouns, limitMs)) {
      const word = `${before}${name}${meaning.suffix}`;
      if (PLAIN_NAME.test(name) && word.startsWith(current) && !taken.includes(name)) lines.push(`${word}\t`);
    }
  }
  if (meaning.files !== undefined) lines.push(`:${meaning.files}`);
  context.io.stdout.write(lines.map((line) => `${line}\n`).join(""));
}
